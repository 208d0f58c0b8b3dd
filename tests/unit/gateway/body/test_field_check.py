"""A small body and a large one are judged alike, however they are written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.api.errors import InvalidRequest
from gateway.api.routes import TABLE
from gateway.body.field_check import MAX_VALUE_BYTES, has_names_once, is_fine
from gateway.body.field_check import NAMES as NAMES_IN
from gateway.body.json_scan import MAX_ELEMENTS
from gateway.body.reader import SMALL_BYTES
from gateway.config.field_policy import FieldPolicy, Mode
from gateway.config.request_fields import TEMPLATE_KWARGS
from tests.reading import read

MIB = 1 << 20
CHAT = TABLE[0]
POLICY = FieldPolicy()
NAMES = (
    "n", "max_tokens", "stop", "logit_bias", "structured_outputs", "regex", "response_format", "tools", "pattern",
    "chat_template_kwargs", "tokenize", "chat_template", "stream_options", "include_usage", "messages", "content",
    "type", "uuid", "image_embeds", "metadata", "x", ":",
)  # fmt: skip
leaf = some.sampled_from(
    [0, 1, -1, 129, 2**63, 1e300, "7", "nan", True, None, "prompt_embeds", ":x", "a" * 1025, '\\":']
)
value = some.recursive(
    leaf,
    lambda inner: (
        some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)


def verdict(body: bytes, policy: FieldPolicy = POLICY) -> str:
    """What a client is told; nothing if the body is taken."""
    try:
        read(body, b"application/json", CHAT, {}, MIB, policy)
    except InvalidRequest as error:
        return error.message
    return ""


@given(some.dictionaries(some.sampled_from(NAMES), value), some.sampled_from(list(Mode)), some.booleans())
def test_a_large_body_is_judged_as_a_small_one(fields: dict[str, object], mode: Mode, compact: bool) -> None:
    """Blanks behind a body make it one that is scanned."""
    policy = FieldPolicy(mode)
    body = json.dumps({"model": "m", **fields}, separators=(",", ":") if compact else None).encode()
    assert verdict(body, policy) == verdict(body + b" " * SMALL_BYTES, policy)


@given(some.dictionaries(some.sampled_from(NAMES), value))
def test_what_is_certainly_fine_is_taken(fields: dict[str, object]) -> None:
    """The short cut lets nothing pass that the scan would refuse."""
    fields |= {"model": "m"}
    body = json.dumps(fields).encode()
    if (
        is_fine(POLICY.of(CHAT.name), fields, NAMES_IN.findall(body), body)
        and b"uuid" not in body
        and b"_embeds" not in body
    ):
        assert verdict(body + b" " * SMALL_BYTES) == ""


members = some.lists(some.tuples(some.sampled_from(NAMES), value), max_size=4)


@given(members, some.sampled_from([":", ": ", " :", "\n: "]))
def test_a_certainty_is_one(pairs: list[tuple[str, object]], colon: str) -> None:
    """Where each name is said to stand once, none stands twice."""
    text = "{" + ",".join(f"{json.dumps(name)}{colon}{json.dumps(inner)}" for name, inner in pairs) + "}"
    fields = json.loads(text)
    if has_names_once(text.encode(), fields):
        assert len(fields) == len(pairs)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}', b'{"a" :1,"a":2}', b'{"a"\n:1,"a":2}', b'[{"b":{"a":1,"a":2}}]', b'{"\\\\":1,"a":1,"a":2}',
        b'{"a\\":":1,"b":1,"b":2}', b'{"a":":","b":1,"b":2}',
    ],
)  # fmt: skip
def test_a_name_that_stands_twice_is_never_certain(text: bytes) -> None:
    """However it is written."""
    assert not has_names_once(text, json.loads(text))


def test_a_value_with_a_rule_has_a_limit() -> None:
    """It is parsed at once, so it may not be long; what has no rule may."""
    long = "x" * MAX_VALUE_BYTES
    assert "longer than" in verdict(json.dumps({"model": "m", "response_format": {"x": long}}).encode())
    assert "longer than" in verdict(json.dumps({"model": "m", "tools": [{"x": long}]}).encode())
    assert verdict(json.dumps({"model": "m", "metadata": {"x": long}}).encode()) == ""


def test_tools_are_judged_one_by_one() -> None:
    """Many of them may be longer together than one may be; the last one counts as the first."""
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 4000}}
    wrong = {"type": "function", "function": {"name": "f", "parameters": {"pattern": "a" * 2000}}}
    assert verdict(json.dumps({"model": "m", "tools": [tool] * 100}).encode()) == ""
    assert "`tools`" in verdict(json.dumps({"model": "m", "tools": [*[tool] * 100, wrong]}).encode())
    assert "elements" in verdict(json.dumps({"model": "m", "tools": [{}] * (MAX_ELEMENTS + 1)}).encode())


def test_every_field_that_is_allowed_by_name_passes() -> None:
    """A refused one too, on every route."""
    policy = FieldPolicy(Mode.STRICT, ["cache_salt", "n", "x"])
    assert verdict(b'{"model":"m","n":1e9,"n":3,"x":1,"cache_salt":"a"}', policy) == ""
    assert "cache_salt" in verdict(b'{"model":"m","cache_salt":"a"}')


@pytest.mark.parametrize("name", TEMPLATE_KWARGS)
@pytest.mark.parametrize("pad", [0, SMALL_BYTES])
def test_null_is_no_argument_of_a_template(name: str, pad: int) -> None:
    """As for any field that is refused; a name that stands twice is judged by no single value."""
    body = '{"model":"m","messages":[{"role":"user","content":"%s"}],"chat_template_kwargs":{%s}}'
    members = {
        "null": "",
        '1,"x":null': f"`chat_template_kwargs.{name}` is refused",
        f'null,"{name}":1': "twice",
    }
    for value, told in members.items():
        found = verdict((body % ("x" * pad, f'"{name}":{value}')).encode())
        assert told in found
        assert bool(told) is bool(found)


@pytest.mark.parametrize("is_text", [False, True])
@pytest.mark.parametrize(("times", "levels", "is_taken"), [(99, 2, True), (99, 3, False), (10**9, 1, False)])
def test_parts_of_a_tag_that_repeat_one_another_multiply(
    is_text: bool, times: int, levels: int, is_taken: bool
) -> None:
    """As the rules of a grammar do, wherever a structural tag may stand."""
    inner: dict[str, object] = {"type": "const_string", "value": "x"}
    for _ in range(levels):
        inner = {"type": "repeat", "min": 0, "max": times, "content": inner}
    tag = {"type": "structural_tag", "format": inner}
    fields = (
        {"structured_outputs": {"structural_tag": json.dumps(tag)}} if is_text else {"response_format": tag}
    )
    body = json.dumps({"model": "m", **fields}).encode()
    for text in (body, body + b" " * SMALL_BYTES):
        assert ("repeats its parts more than" in verdict(text)) is not is_taken
