"""The scan finds what a whole parser finds: the same members, the same addresses, however a text is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from gateway.api.errors import InvalidRequest
from gateway.api.routes import TABLE, Kind
from gateway.body.json_scan import MAX_ADDRESSES, SLICE_BYTES, TURN_BYTES, JsonScan
from gateway.body.members import NOTED, PART_KEYS, PARTS, SOURCES, Member, addresses_of, members_of
from tests.reading import ANY_FIELD

NAMES = (
    "model",
    "stream_options",
    "include_usage",
    "messages",
    "content",
    "image_url",
    "url",
    "input",
    "x",
    "",
)
ROOT = members_of("chat_completions", ANY_FIELD.of("chat_completions"), ("", "x"), parts=True)
LONG = (SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 3 * TURN_BYTES + 7)


def scanned(text: bytes, root: Member = ROOT) -> JsonScan:
    scan = JsonScan(text, root)
    while not scan.advance():
        pass
    return scan


def escaped(text: str, every: bool) -> str:
    """A string as JSON, with each letter as an escape where `every`."""
    return (
        '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"'
        if every
        else json.dumps(text, ensure_ascii=False)
    )


blank = some.sampled_from(["", "", " ", "\n", "\t \r\n", " " * 40])
scalar = some.sampled_from(
    ["0", "-1.5e3", "1E-7", "1.0e0", "2e+007", "9E308", "0e00", "12345678901234567890123",
     "true", "false", "null", '""', '"m"', '"http://h/x"',
     '"data:image/png;base64,AA"', '"\\ud83d\\ude00 \\" \\\\"', '"{["', '"\\\\"', '"é你"']
)  # fmt: skip


@some.composite
def written(draw: some.DrawFn, levels: int = 4) -> str:
    """Some JSON as anybody might write it."""
    kind = draw(some.integers(0, 3)) if levels else 0
    if kind == 0:
        return draw(scalar)
    inner = [draw(written(levels - 1)) for _ in range(draw(some.integers(0, 4)))]
    if kind == 1:
        return "[" + ",".join(draw(blank) + one + draw(blank) for one in inner) + draw(blank) + "]"
    names = [escaped(draw(some.sampled_from(NAMES)), draw(some.booleans())) for _ in inner]
    fields = [
        draw(blank) + name + draw(blank) + ":" + draw(blank) + one
        for name, one in zip(names, inner, strict=True)
    ]
    return "{" + ",".join(field + draw(blank) for field in fields) + "}"


def walk(value: object, path: tuple[str, ...]) -> Iterator[object]:
    """Every value behind a path of names; lists are passed through."""
    if isinstance(value, list):
        for inner in value:
            yield from walk(inner, path)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from walk(value[path[0]], path[1:])


def one_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(pairs)) == len(pairs), "a name twice"
    return dict(pairs)


@given(written())
@example('{"model":"m"}')
def test_the_members_are_where_a_parser_finds_them(text: str) -> None:
    """Spans hold what the parser's values hold, and addresses are all that it finds, in texts without a name twice."""
    try:
        value = json.loads(text, object_pairs_hook=one_each)
    except AssertionError:
        scanned(text.encode())
        return
    scan = scanned(text.encode())
    fields = value if isinstance(value, dict) else {}
    found = {
        name: json.loads(scan.text[start:end]) for name, (start, end) in scan.spans.items() if "." not in name
    }
    assert found == {name: fields[name] for name in (*NOTED, "x", "") if name in fields}
    addresses = [
        url for path in addresses_of("chat_completions") for url in walk(fields, tuple(path.split(".")))
        if isinstance(url, str) and not url.startswith("data:")
    ]  # fmt: skip
    assert sorted(scan.addresses) == sorted(addresses)


@given(some.binary(max_size=60) | written().map(str.encode), some.integers(0, 200), some.binary(max_size=2))
def test_what_both_take_both_read_the_same(text: bytes, at: int, instead: bytes) -> None:
    """After any change of a text, a scan and a parser that both take it agree on the model."""
    text = text[:at] + instead + text[at + 1 :]
    with suppress(InvalidRequest, ValueError, RecursionError):
        scan = scanned(text)
        value = json.loads(text.decode(), object_pairs_hook=list)
        models = [inner for name, inner in value if name == "model"] if text.strip()[:1] == b"{" else []
        assert ("model" in scan.spans) == bool(models)
        assert ("model" in scan.duplicates) == (len(models) > 1)
        if len(models) == 1:
            start, end = scan.spans["model"]
            assert json.loads(text[start:end], object_pairs_hook=list) == models[0]


@pytest.mark.parametrize("size", LONG)
@pytest.mark.parametrize("filling", ["A", "\\n", "\\\\", '\\"', "你", "{", "\\u0041"])
def test_strings_of_any_length(size: int, filling: str) -> None:
    """Read in slices, wherever a slice ends: as a value that is looked for, as one that is not, and as a name."""
    text = filling * (size // len(filling.encode())) + "A" * (size % len(filling.encode()))
    for before in ("", "1", "12"):
        body = f'{{"a":[{before or 0},"{text}"],"{text}":1,"x":"{text}","model":"m"}}'.encode()
        scan = scanned(body)
        start, end = scan.spans["x"]
        assert json.loads(body[start:end]) == json.loads(f'"{text}"')
        assert "model" in scan.spans


@pytest.mark.parametrize("size", LONG)
def test_blanks_of_any_length(size: int) -> None:
    """Between any two parts."""
    blanks = b" " * size
    parts = [b"", b"{", b'"a"', b":", b"[", b"1", b",", b"2", b"]", b",", b'"model"', b":", b'"m"', b"}", b""]
    assert "model" in scanned(blanks.join(parts)).spans


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{", '{"model"', '{"model":', '{"model":"m"', '{"model":"m",}', '{"model" "m"}', '{"model":"m"}}',
        '{"model":"m"}x', "{'model':1}", "{1:2}", '{"a":01}', '{"a":+1}', '{"a":.5}', '{"a":1.}', '{"a":tru}',
        '{"a":NaN}', '{"a":[NaN]}', '{"a":[-Infinity]}', '{"a":1e400}', '{"a":[1e400]}',
        '{"a":1e}', '{"a":[1e+]}', '{"a":["x]}', '{"a":"x\\"}',
        '{"messages":[1 2]}', '{"messages":[1,]}', '{"messages":[,1]}', '{"messages":{"content":1]}', '{,"a":1}',
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str) -> None:
    """Where somebody looks, the grammar holds; elsewhere, its words and brackets."""
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        scanned(text.encode())


def test_addresses_are_bounded() -> None:
    """As many as nobody asks for, or one as long as none is."""
    part = '{"image_url":"http://x"},'
    with pytest.raises(InvalidRequest, match="addresses"):
        scanned(f'{{"messages":[{{"content":[{part * (MAX_ADDRESSES + 1)}0]}}]}}'.encode())
    with pytest.raises(InvalidRequest, match="addresses"):
        scanned(part.replace("x", "x" * 10_000).join(['{"messages":[{"content":[', "0]}]}"]).encode())


def test_every_route_with_a_body_says_where_its_media_are() -> None:
    """A new route needs a row, be it an empty one."""
    assert {route.name for route in TABLE if route.kind is Kind.JSON} == PARTS.keys()
    assert SOURCES.keys() <= PARTS.keys()


@pytest.mark.parametrize("route", [name for name, paths in PARTS.items() if paths])
def test_each_place_of_the_table_is_looked_at(route: str) -> None:
    """An address at any of them is found, as a string and in an object, in a list or not."""
    for path in PARTS[route]:
        for key in PART_KEYS:
            for value in ("http://h/x", {"url": "http://h/x"}, [{"url": "http://h/x"}]):
                body: object = {key: value}
                for name in reversed(path.split(".")):
                    body = {name: [body]}
                assert scanned(
                    json.dumps(body).encode(), members_of(route, ANY_FIELD.of(route), (), parts=True)
                ).addresses == ["http://h/x"]
