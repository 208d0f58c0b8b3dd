"""Hears a twin's whole repertoire from a running server: `python -m tests.twins.recite TWIN BASE_URL`.

Every turn is asked whole and as a stream, every text as a completion. Exits 1 when a word, a call or a reason to
finish differs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from openai import OpenAI

from tests.twins.dialogues import Answer, Text, ToolCall, Turn
from tests.twins.repertoire import REPERTOIRES

Heard = tuple[Answer, str]  # an answer and its finish_reason


def whole(client: OpenAI, model: str, turn: Turn) -> tuple[Heard, list[str]]:
    """What is answered at once, and the ids of the calls."""
    choice = client.chat.completions.create(model=model, temperature=0, **turn.request()).choices[0]
    message = choice.message
    calls = message.tool_calls or []
    answer = heard(
        message.content,
        getattr(message, "reasoning", None),
        [(call.function.name, call.function.arguments) for call in calls],
    )
    return (answer, choice.finish_reason), [call.id for call in calls]


def streamed(client: OpenAI, model: str, turn: Turn) -> Heard:
    """What is answered piece by piece, put together."""
    chunks = list(client.chat.completions.create(model=model, temperature=0, stream=True, **turn.request()))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    deltas = [choice.delta for choice in choices]
    pieces = [piece.function for delta in deltas for piece in delta.tool_calls or []]
    calls = [
        ("".join(piece.name or "" for piece in pieces), "".join(piece.arguments or "" for piece in pieces))
    ]
    answer = heard(
        "".join(delta.content or "" for delta in deltas),
        "".join(getattr(delta, "reasoning", None) or "" for delta in deltas),
        calls if pieces else [],
    )
    return answer, next(choice.finish_reason for choice in reversed(choices) if choice.finish_reason)


def heard(content: str | None, reasoning: str | None, calls: Iterable[tuple[str, str]]) -> Answer:
    """An answer without the blank lines that some formats put around its parts."""
    made = tuple(ToolCall(name, json.loads(arguments)) for name, arguments in calls)
    return Answer((content or "").strip(), (reasoning or "").strip(), made)


def differences(client: OpenAI, model: str, name: str, turn: Turn) -> Iterator[str]:
    """What is not as it must be, one line each."""
    expected = (turn.answer, turn.answer.finish_reason)
    at_once, ids = whole(client, model, turn)
    for way, found in (("whole", at_once), ("streamed", streamed(client, model, turn))):
        print(f"{'ok  ' if found == expected else 'WRONG'} {name}, {way}: {said(found[0])}", flush=True)
        if found != expected:
            yield f"{name}, {way}:\n  expected {expected}\n  heard    {found}"
    if ids:
        print(f"     ids of the calls: {ids}")


def said(answer: Answer) -> str:
    """One line for a person: the calls, or the beginning of the text."""
    called = ", ".join(
        f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})" for call in answer.tool_calls
    )
    return f"[{answer.reasoning[:40]!r}] {called or repr(answer.content[:60])}"


def completion(client: OpenAI, model: str, text: Text) -> Iterator[str]:
    """A line when a completion is not the rest of its text."""
    made = client.completions.create(model=model, prompt=text.given, max_tokens=1024, temperature=0).choices[
        0
    ]
    right = (made.text, made.finish_reason) == (text.said, "stop")
    print(f"{'ok  ' if right else 'WRONG'} completion of {text.given!r}: {made.text[:60]!r}", flush=True)
    if not right:
        heard_text = f"{made.text!r} ({made.finish_reason})"
        yield f"completion of {text.given!r}:\n  expected {text.said!r}\n  heard    {heard_text}"


def main(twin: str, base_url: str) -> int:
    """Hears everything; returns the exit code."""
    client: Any = OpenAI(base_url=base_url, api_key="any", timeout=120, max_retries=0)
    model = next(iter(client.models.list())).id
    repertoire = REPERTOIRES[twin]
    wrong = [
        line for name, turn in repertoire.turns.items() for line in differences(client, model, name, turn)
    ]
    wrong += [line for text in repertoire.texts for line in completion(client, model, text)]
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
