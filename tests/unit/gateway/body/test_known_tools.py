"""Tools that were read before: a body with them is judged as if nothing were known, and no name or level is hidden."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.api.errors import InvalidRequest
from gateway.api.routes import TABLE
from gateway.body.json_scan import MAX_DEPTH
from gateway.body.known_tools import KEY_BYTES, LEARN_EVERY, LEAST_BYTES, MOST, KnownTools
from gateway.body.reader import BodyReader, ParsedBody
from gateway.config.field_policy import FieldPolicy

CHAT = TABLE[0]
POLICY = FieldPolicy()
MIB = 1 << 20
COMPACT: Callable[[object], str] = json.JSONEncoder(separators=(",", ":")).encode
WRITERS = [COMPACT, json.JSONEncoder().encode]


def tool(name: str, properties: dict[str, object] | None = None, **more: object) -> dict[str, object]:
    parameters = {"type": "object", "properties": properties or {"city": {"type": "string"}}, **more}
    return {
        "type": "function",
        "function": {"name": name, "description": "x" * 200, "parameters": parameters},
    }


TOOLS = [tool(f"tool_{number}") for number in range(5)]
MANY = [
    tool(f"tool_{number}", {"text": {"type": "string"}, "n": {"type": "integer"}}) for number in range(20)
]


def body(tools: object, write: Callable[[object], str] = COMPACT, /, **more: object) -> bytes:
    fields = {"model": "m", "messages": [{"role": "user", "content": "x" * LEAST_BYTES}], "tools": tools}
    return write(fields | more).encode()


def judged(reader: BodyReader, text: bytes) -> tuple[str, bytes]:
    """What a client is told, and what is sent."""
    reading = reader.begin(text, b"application/json", CHAT)
    try:
        while not reading.advance():
            pass
        parsed: ParsedBody = reading.parsed()
    except InvalidRequest as error:
        return error.message, b""
    return "", b"".join(parsed.parts)


def knowing(*texts: bytes) -> BodyReader:
    """A reader that has learned the tools of these bodies, where they can be learned."""
    reader = BodyReader({}, MIB, POLICY)
    for text in texts:
        for _ in range(LEARN_EVERY):
            judged(reader, text)
    return reader


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("tools", [TOOLS, MANY])
def test_known_tools_are_left_out(tools: list[object], write: Callable[[object], str]) -> None:
    """Brackets as deep as they were stand in their place; the body itself is sent as it is."""
    text = body(tools, write)
    known = knowing(text)
    cut = known.tools.cut(text)
    assert len(cut) < len(text) - len(write(tools)) + 20
    assert json.loads(cut) == json.loads(text) | {"tools": [[[[[[]]]]]]}
    assert judged(known, text) == ("", text) == judged(BodyReader({}, MIB, POLICY), text)


BAD: list[dict[str, object]] = [
    {"tools": [tool("a", {"a": {"type": "string", "pattern": "(a{99}){99}{99}"}})]},
    {"tools": [tool("a", {"a": {"type": "string", "maxLength": 10**9}})]},
    {"tools": [tool("a", {"uuid": {"type": "string"}})]},
    {"tools": TOOLS, "no_such": 1},
    {"tools": TOOLS, "n": 1000},
    {"tools": TOOLS, "chat_template": "x"},
    {"tools": TOOLS, "metadata": {"tools": [{"a": "b"}]}},
    {"metadata": {"tools": TOOLS}, "tools": [tool("a", {"a": {"pattern": "a{99999}"}})]},
    {"tools": [*TOOLS, tool("a", {"a": {"pattern": "a{99999}"}})]},
    {"tools": TOOLS, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]},
    {"tools": TOOLS, "messages": [{"role": "user", "content": [{"type": "text", "text": "a", "uuid": "b"}]}]},
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("fields", BAD)
def test_known_tools_hide_nothing(fields: dict[str, object], write: Callable[[object], str]) -> None:
    """What stands in or beside them is told as ever, however often it was read."""
    text = body([], write, **fields)
    reader = knowing(body(TOOLS, write), body(MANY, write), text)
    assert judged(reader, text) == judged(BodyReader({}, MIB, POLICY), text)


def test_a_name_that_a_second_one_hides_is_not_learned() -> None:
    """Once parsed it would be gone; a worker might read it."""
    hidden = b'"parameters":{"pattern":"(a{99}){99}{99}"},"parameters":{}'
    text = (
        body([tool("a")])
        .replace(b'"parameters":{}', hidden)
        .replace(b'"description"', hidden + b',"description"')
    )
    assert knowing(text).tools.cut(text) == text


def test_levels_that_a_second_name_hides_are_counted() -> None:
    """Once parsed they would be gone; a worker's parser goes through them."""
    deep = b"[" * (MAX_DEPTH + 8) + b"]" * (MAX_DEPTH + 8)
    text = body([tool("a")]).replace(b'"description"', b'"a":%b,"a":1,"description"' % deep)
    assert judged(knowing(text), text) == judged(BodyReader({}, MIB, POLICY), text)
    assert judged(knowing(text), text)[0].startswith("The request body is nested deeper")


def test_tools_that_stand_twice_are_refused() -> None:
    """Known or not."""
    text = body(TOOLS)
    twice = text[:-1] + b',"tools":' + COMPACT(MANY).encode() + b"}"
    assert judged(knowing(text), twice)[0] == judged(BodyReader({}, MIB, POLICY), twice)[0] != ""


@pytest.mark.parametrize("levels", [MAX_DEPTH - 8, MAX_DEPTH + 8])
def test_depth_is_counted_with_known_tools(levels: int) -> None:
    """Within them, and around them."""
    deep: object = "x"
    for _ in range(levels):
        deep = [deep]
    for fields in ({"tools": [tool("a", {"a": {"enum": deep}})]}, {"metadata": {"tools": TOOLS, "a": deep}}):
        text = body([], **fields)
        assert judged(knowing(body(TOOLS), text), text) == judged(BodyReader({}, MIB, POLICY), text)


parts = some.recursive(
    some.sampled_from(["pattern", "x", 1, None, '"tools":[', "\\u0070attern", "uuid"]),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["tools", "pattern", 'x"tools', "type", "uuid", "enum", "é"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    some.lists(parts, max_size=4), some.lists(parts, max_size=4), some.sampled_from(WRITERS), some.booleans()
)
def test_whatever_is_known_changes_no_answer(
    one: object, other: object, write: Callable[[object], str], first: bool
) -> None:
    """Of any tools, and of any other field in which the same texts stand."""
    fields = {"metadata": {'x"tools': one}, "tools": other} if first else {"tools": other, "metadata": one}
    text = body([], write, **fields)
    reader = knowing(body(one, write), body(other, write), text)
    assert judged(reader, text) == judged(BodyReader({}, MIB, POLICY), text)


def test_few_are_learned_and_many_forgotten() -> None:
    """Tools that change with each request cost little, and memory is bounded."""
    known = KnownTools([], b"\\u00")
    for number in range(MOST * LEARN_EVERY * 2):
        known.cut(body([tool(f"t{number}")]))
    assert len(known._known) == MOST
    assert max(map(len, known._known)) <= KEY_BYTES


@pytest.mark.parametrize(
    "text",
    [
        b'"tools":',
        b'"tools":[',
        b'"tools": x',
        b'"tools":[1,',
        b'"tools":"a"',
        b'"tools":[' * 200,
        b'"tools":["\xff"]',
    ],
)
def test_what_is_no_list_is_not_learned(text: bytes) -> None:
    """Whatever it is, nothing breaks."""
    known = KnownTools([], b"\\u00")
    for _ in range(LEARN_EVERY * 2):
        assert known.cut(text + b" " * LEAST_BYTES) == text + b" " * LEAST_BYTES
