"""The reasoning under both names: whatever the answer, it stays the same JSON but for the second name."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from gateway.reasoning import MOST_HELD, Lines, under_both_names

# What is most like the key, and what a search for it could trip over.
tricky = some.sampled_from(
    ['"reasoning":', '\\"reasoning":"x"', "reasoning", '"reasoning_content":', '":', "\\", '"', "\n\n"]
)
texts = some.lists(tricky | some.text(max_size=8), max_size=5).map("".join)
calls = some.just([{"arguments": '{"reasoning": "x"}'}])
messages = some.fixed_dictionaries(
    {"content": some.none() | texts},
    optional={"reasoning": some.none() | texts, "refusal": some.none(), "tool_calls": calls},
)
answers = some.fixed_dictionaries(
    {"choices": some.lists(some.fixed_dictionaries({"delta": messages}), max_size=3)}
)
separators = some.sampled_from([(",", ":"), (", ", ": ")])


def named_twice(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer as it must become."""
    deltas = [choice["delta"] for choice in answer["choices"]]
    more = [{"reasoning_content": delta["reasoning"]} if "reasoning" in delta else {} for delta in deltas]
    return {"choices": [{"delta": delta | extra} for delta, extra in zip(deltas, more, strict=True)]}


@given(answers, separators, some.booleans())
def test_only_the_second_name_is_added(
    answer: dict[str, Any], separators: tuple[str, str], ascii_only: bool
) -> None:
    """Compact or not, escaped or not: the JSON is the same, with each `reasoning` once more."""
    body = json.dumps(answer, separators=separators, ensure_ascii=ascii_only).encode()
    assert json.loads(under_both_names(body)) == named_twice(answer)


@given(answers)
def test_all_other_bytes_stay(answer: dict[str, Any]) -> None:
    """Without the inserted field the bytes are those of before."""
    body = json.dumps(answer).encode()
    added = under_both_names(body)
    for choice in answer["choices"]:
        if "reasoning" in choice["delta"]:
            text = json.dumps(choice["delta"]["reasoning"]).encode()
            added = added.replace(b',"reasoning_content": ' + text, b"", 1)
    assert added == body


@given(answers, some.lists(some.integers(0, 400), max_size=8))
def test_pieces_make_no_difference(answer: dict[str, Any], cuts: list[int]) -> None:
    """Wherever a stream is cut, the same bytes come out, and none before its line is whole."""
    stream = b"".join(b"data: %b\n\n" % json.dumps(answer).encode() for _ in range(2)) + b"data: [DONE]"
    lines, edges = Lines(), [0, *sorted(cuts), len(stream)]
    fed = [lines.feed(stream[start:end]) for start, end in pairwise(edges)]
    assert all(piece == b"" or piece.endswith(b"\n") for piece in fed)
    assert b"".join(fed) + lines.rest() == under_both_names(stream)


def test_a_former_name_that_is_there_stays_alone() -> None:
    """A worker that writes both itself is not corrected."""
    body = b'{"reasoning":"a","reasoning_content":"a"}'
    assert under_both_names(body) == body


def test_an_endless_line_is_not_kept() -> None:
    """A stream that is no lines passes, and memory stays bounded."""
    lines = Lines()
    passed = sum(len(lines.feed(b"x" * 65536)) for _ in range(64))
    assert passed >= 64 * 65536 - MOST_HELD
