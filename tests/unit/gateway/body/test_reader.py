"""What a body says: its model, whether it streams, whose usage it wants; and what is refused."""

import json
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from email import message_from_bytes
from email.policy import HTTP
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import JsonValue

from gateway.api.errors import InvalidRequest, RequestTooLarge
from gateway.api.routes import Route, Routes
from gateway.body.json_scan import MAX_CONTAINERS, MAX_DEPTH
from gateway.body.members import PARTS, addresses_of
from gateway.body.reader import (
    ASK_FOR_USAGE,
    ASK_IN_EACH_CHUNK,
    MEDIA_MARKS,
    NAMES,
    SMALL_BYTES,
    BodyReader,
    ParsedBody,
    remote_media,
)
from gateway.config.api_keys import ApiKey
from gateway.config.field_policy import FieldPolicy
from gateway.config.model_options import Alias
from tests.reading import ANY_FIELD, read

ROUTES, MIB = Routes(), 1024 * 1024
READER = BodyReader({}, MIB, ANY_FIELD)


def route(path: str) -> Route:
    found = ROUTES.find(path.encode())
    assert found is not None
    return found


CHAT, COMPLETIONS, EMBEDDINGS, SPEECH = (
    route("/v1/chat/completions"), route("/v1/completions"), route("/v1/embeddings"),
    route("/v1/audio/transcriptions"),
)  # fmt: skip


def parsed(body: object, at: Route = CHAT) -> ParsedBody:
    return read(json.dumps(body).encode(), b"application/json", at, {}, MIB)


anything = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
)


@given(some.dictionaries(some.text(max_size=5), anything), some.text(min_size=1))
def test_the_model_is_found_in_any_object(rest: dict[str, object], model: str) -> None:
    """Whatever else a body holds, its model is the one it names."""
    assert parsed(rest | {"model": model}).model == model


@given(some.binary(max_size=200))
def test_no_bytes_break_the_parser(body: bytes) -> None:
    """Any bytes at all are a model or a refusal, never another error."""
    with suppress(InvalidRequest):
        assert read(body, b"application/json", CHAT, {}, MIB).model


@given(some.dictionaries(some.text(max_size=5), anything))
def test_only_the_wish_for_usage_is_added(rest: dict[str, object]) -> None:
    """A stream's request is the client's own with one field before the others; any other is sent as it came."""
    body = {name: value for name, value in rest.items() if name != "stream_options"} | {
        "model": "m",
        "stream": True,
    }
    sent = parsed(body)
    assert json.loads(sent.body) == body | {"stream_options": {"include_usage": True}}
    assert sent.body.endswith(json.dumps(body).encode()[1:])
    assert sent.hides_usage
    assert parsed(body | {"stream": False}).body == json.dumps(body | {"stream": False}).encode()
    assert parsed(body, EMBEDDINGS).body == json.dumps(body).encode()


@pytest.mark.parametrize(
    ("options", "sent", "hides"),
    [
        ({"include_usage": True}, {"include_usage": True}, False),
        ({"include_usage": False}, {"include_usage": True}, True),
        ({}, {"include_usage": True}, True),
        ({"x": 1}, {"include_usage": True, "x": 1}, True),
        (
            {"continuous_usage_stats": True},
            {"include_usage": True, "continuous_usage_stats": False},
            True,
        ),
        (None, {"include_usage": True}, True),
        ("nonsense", "nonsense", True),
    ],
)
def test_whose_usage_it_is(options: object, sent: object, hides: bool) -> None:
    """Who asked for it gets it; nonsense is left to the worker's own words."""
    found = parsed({"model": "m", "stream": True, "stream_options": options})
    assert (json.loads(found.body)["stream_options"], found.hides_usage) == (sent, hides)


EACH = {"include_usage": True, "continuous_usage_stats": True}
NAMED = ApiKey("team-a")


@pytest.mark.parametrize(
    ("options", "sent", "hides", "cuts"),
    [
        ({"include_usage": True}, EACH, False, True),
        ({"include_usage": False}, EACH, True, True),
        ({}, EACH, True, True),
        ({"x": 1}, EACH | {"x": 1}, True, True),
        ({"continuous_usage_stats": True}, EACH, True, True),
        ({"continuous_usage_stats": False, "include_usage": True}, EACH, False, True),
        (EACH, EACH, False, False),
        (None, EACH, True, True),
        ("nonsense", "nonsense", True, True),
    ],
)
def test_a_key_is_asked_for_in_each_chunk(options: object, sent: object, hides: bool, cuts: bool) -> None:
    """So that an aborted stream is counted too; what the client asked for itself is not taken away."""
    body = {"model": "m", "stream": True, "stream_options": options}
    found = whole(READER, json.dumps(body).encode(), NAMED)
    assert (json.loads(found.body)["stream_options"], found.hides_usage, found.cuts_usage) == (
        sent,
        hides,
        cuts,
    )


def test_how_a_small_body_of_a_key_is_changed() -> None:
    """By one member before all others, and `n` needs no scan; the model may be one whose worker would count anew."""
    body = b'{"model":"m","n":3,"stream":true}'
    found = whole(READER, body, NAMED)
    assert found.body == b"{" + ASK_IN_EACH_CHUNK + body[1:]
    assert (found.hides_usage, found.cuts_usage, found.fields["n"]) == (True, True, 3)
    spared = whole(BodyReader({}, MIB, ANY_FIELD, {"m"}), body, NAMED)
    assert spared.body == b"{" + ASK_FOR_USAGE + body[1:]
    assert (spared.hides_usage, spared.cuts_usage) == (True, False)
    plain = whole(READER, b'{"model":"m","stream":false}', NAMED)
    assert (plain.body, plain.cuts_usage) == (b'{"model":"m","stream":false}', False)


def whole(reader: BodyReader, body: bytes, key: ApiKey) -> ParsedBody:
    reading = reader.begin(body, b"application/json", CHAT, key)
    while not reading.advance():
        pass
    return reading.parsed()


def nested(levels: int) -> dict[str, object]:
    value: object = 1
    for level in range(levels):
        value = [value] if level % 2 else {"x": value}
    return {"model": "m", "x": value}


def test_a_text_beyond_its_bound_is_not_parsed() -> None:
    """Only images and sound make a body so large."""
    text, image = {"role": "user", "content": "x" * MIB}, {"image_url": {"url": "data:,"}}
    with pytest.raises(RequestTooLarge):
        parsed({"model": "m", "messages": [text]})
    assert parsed({"model": "m", "messages": [text, image]}).model == "m"


@pytest.mark.parametrize(
    ("part", "count", "match"),
    [
        (b"[],", MAX_CONTAINERS, "objects"),
        (b'{"x":{}},', MAX_CONTAINERS, "objects"),
        (b"0,", 4_000_001, "values"),
    ],
)
def test_values_are_bounded(part: bytes, count: int, match: str) -> None:
    """A few million small ones would take the memory of gigabytes of a worker, and its loop's time."""
    body = b'{"model":"m","image_url":[' + part * count + b"0]}"
    with pytest.raises(InvalidRequest, match=match):
        read(body, b"application/json", CHAT, {}, MIB)


def test_tokens_are_no_containers() -> None:
    """An array of as many tokens as a context holds is ordinary, and so are brackets in a text."""
    for prompt in ([123456] * 262_144, "[{" * MAX_CONTAINERS):
        body = json.dumps({"model": "m", "prompt": prompt}).encode()
        assert read(body, b"application/json", COMPLETIONS, {}, 10 * MIB).model == "m"


def test_depth_is_bounded() -> None:
    """As deep as allowed passes, one deeper does not; many shallow objects do."""
    assert parsed(nested(MAX_DEPTH - 1)).model == "m"
    with pytest.raises(InvalidRequest, match="deeper"):
        parsed(nested(MAX_DEPTH))
    assert parsed({"model": "m", "x": [{}] * 1000}).model == "m"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","x":{"model":"y"},"model":"a"}',
        b'{"model":"a","\\u006dodel":"b"}',
        b'{"mod\\u0065l":"a","m\\u006Fdel":"b"}',
    ],
)
def test_two_models_are_none(body: bytes) -> None:
    """Another parser could take the other one."""
    with pytest.raises(InvalidRequest, match="twice"):
        read(body, b"application/json", CHAT, {}, MIB)


def test_a_model_within_something_else_is_no_second_one() -> None:
    """Tools and texts may have fields of that name."""
    assert parsed({"model": "m", "tools": [{"model": "x"}], "text": '"model"'}).model == "m"


def form(*parts: str, boundary: str = "B") -> bytes:
    return "".join(f"--{boundary}\r\n{part}\r\n" for part in parts).encode() + f"--{boundary}--\r\n".encode()


FIELD = 'Content-Disposition: form-data; name="{}"\r\n\r\n{}'
FILE = 'Content-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: a/b\r\n\r\nRIFF name="model"'


def test_the_model_of_a_form() -> None:
    """The field of that name, before or behind the file, in quotes or not; the body stays as it is."""
    for parts in ([FIELD.format("model", "m"), FILE], [FILE, FIELD.format("model", "m")],
                  [FILE, FIELD.format("model", "m").replace('"', "")]):  # fmt: skip
        found = read(form(*parts), b'multipart/form-data; boundary="B"', SPEECH, {}, MIB)
        assert (found.model, found.body) == ("m", form(*parts))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(FILE), b"multipart/form-data; boundary=B"),
        (form(FIELD.format("model", "a"), FIELD.format("model", "b")), b"multipart/form-data; boundary=B"),
        (form(FIELD.format("model", "a")), b"multipart/form-data"),
        (form(FIELD.format("model", "a")), b"application/json"),
        (form(FIELD.format("model", "a")), b""),
    ],
)
def test_a_form_without_one_model(body: bytes, kind: bytes) -> None:
    """None, two, or no way to tell."""
    with pytest.raises(InvalidRequest):
        read(body, kind, SPEECH, {}, MIB)


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        (b"multipart/form-data; boundary=B", "B"),
        (b"Multipart/Form-Data;BOUNDARY=B;", "B"),
        (b'multipart/form-data; charset="UTF-8"; boundary="B C:=?/"', "B C:=?/"),
        (b"multipart/form-data ; charset=utf-8 ; boundary=----WebKitForm7MA4YWxk", "----WebKitForm7MA4YWxk"),
        (b"multipart/form-data; boundary====a=/b", "===a=/b"),
        (b"multipart/form-data; boundary=" + b"x" * 70, "x" * 70),
    ],
)  # fmt: skip
def test_the_boundary_of_a_form(kind: bytes, boundary: str) -> None:
    """A token or a quoted string, wherever it stands; with or without what else clients write."""
    assert read(form(FIELD.format("model", "m"), boundary=boundary), kind, SPEECH, {}, MIB).model == "m"


@pytest.mark.parametrize(
    "kind",
    [
        b'multipart/form-data; x="' + b";" * 16_000,
        b"multipart/form-data; boundary=B" + b"; x=y" * 4_000,
        b"multipart/form-data; boundary*" + b"9" * 5000 + b"=B",
        b"multipart/form-data; boundary*" + b"9" * 100 + b"=B",
        b"multipart/form-data; boundary*0=B",
        b"multipart/form-data; boundary*=utf-8''B",
        b"multipart/form-data; boundary=B; boundary=C",
        b"multipart/form-data; boundary=B; charset=utf-16",
        b"multipart/form-data; charset=utf-7; boundary=B",
        b'multipart/form-data; boundary=B; charset="utf-8; x"',
        b"multipart/form-data; boundary=B; charset=utf-8; Charset=utf-8",
        b"multipart/form-data; boundary=B; x=y",
        b"multipart/form-data; boundary=B; Boundary=B",
        b'multipart/form-data; boundary="B',
        b'multipart/form-data; boundary="\\B"',
        b'multipart/form-data; boundary="B "',
        b"multipart/form-data; boundary=" + b"x" * 71,
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=\xe9",
        b"multipart/form-dataX; boundary=B",
        b"multipart/form-data boundary=B",
        b"multipart/form-data; boundary=B, text/plain",
    ],
)
def test_a_boundary_that_two_readers_could_take_for_two(kind: bytes) -> None:
    """It is refused, and however long its header is, in no time: none is taken apart beyond 256 bytes."""
    with pytest.raises(InvalidRequest, match="boundary"):
        read(form(FIELD.format("model", "m")), kind, SPEECH, {}, MIB)


@given(some.binary(max_size=200), some.binary(max_size=60))
def test_no_form_breaks_the_parser(body: bytes, kind: bytes) -> None:
    """Any bytes at all are a model or a refusal."""
    with suppress(InvalidRequest):
        assert read(body, b"multipart/form-data; boundary=" + kind, SPEECH, {}, MIB).model


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, "https://x/y.png"),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, "file:///etc/passwd"),
        ({"type": "input_image", "image_url": "HTTP://x"}, "HTTP://x"),
        ({"type": "video_url", "video_url": {"url": "http://x"}}, "http://x"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, None),
        ({"type": "text", "text": 'see "image_url": http://x'}, None),
    ],
)
def test_media_that_a_worker_would_fetch(part: dict[str, object], found: str | None) -> None:
    """Every address but data: URIs, wherever the message has it."""
    assert remote_media(parsed({"model": "m", "messages": [{"role": "user", "content": [part]}]})) == found


FAST = {"fast": Alias(model="m", force={"temperature": 0}, default={"max_tokens": 5})}


def test_an_alias_is_sent_as_its_model() -> None:
    """With the parameters it forces, and those it fills in; the worker knows nothing of the alias."""
    given_body = {"model": "fast", "temperature": 1, "stream": True}
    sent = read(json.dumps(given_body).encode(), b"application/json", CHAT, FAST, MIB)
    assert json.loads(sent.body) == {
        "model": "m", "temperature": 0, "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert (sent.model, sent.alias) == ("m", FAST["fast"])


FORM = b"multipart/form-data; boundary=B"
SPOKEN = {
    "spoken": Alias(
        model="m",
        force={"temperature": 0, "include": ["logprobs", "x"], "n": None, "chat_template_kwargs": {"a": 1}},
        default={"language": "de", "stream": True, "prompt": 'a "b"\n'},
    )
}


def fields_in(body: bytes) -> list[tuple[str, bytes]]:
    """The fields of a form, as another reader finds them."""
    message = message_from_bytes(b"content-type: " + FORM + b"\r\n\r\n" + body, policy=HTTP)
    parts = [part for part in message.walk() if not part.is_multipart()]
    return [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True))  # type: ignore[misc]
        for part in parts
    ]


@pytest.mark.parametrize(
    "parts",
    list(permutations([FIELD.format("model", "spoken"), FIELD.format("temperature", "1"), FILE])),
)
@pytest.mark.parametrize("before", ["", "a preamble\r\n", "\r\n"])
@pytest.mark.parametrize("size", [0, MIB])
def test_an_alias_in_a_form(parts: Sequence[str], before: str, size: int) -> None:
    """Its model and what it forces stand in place of the client's, its defaults where the client says nothing."""
    more = (FIELD.format("include[]", "logprobs"), FIELD.format("prompt", "mine"), FIELD.format("n", "3"))
    body = before.encode() + form(*parts, *more, FILE + "x" * size)
    sent = read(body, FORM, SPEECH, SPOKEN, MIB, FieldPolicy())
    whole = b"".join(sent.parts)
    read_back = fields_in(whole)
    assert (sent.model, sent.named, sent.size) == ("m", "spoken", len(whole))
    assert [one for one in read_back if one[0] != "file"] == [
        ("model", b"m"), ("language", b"de"), ("stream", b"true"), ("temperature", b"0"),
        ("include[]", b"logprobs"), ("include[]", b"x"), ("prompt", b"mine"),
    ]  # fmt: skip
    assert [len(value) for name, value in read_back if name == "file"] == [17, 17 + size]
    assert read(whole, FORM, SPEECH, {}, 2 * MIB, FieldPolicy()).model == "m"


@given(
    some.lists(some.sampled_from([FIELD.format("n", "1"), FILE, FIELD.format("user", "\r\n")]), max_size=3)
)
def test_an_alias_leaves_the_other_parts_of_a_form_alone(others: list[str]) -> None:
    """Byte by byte, wherever its own part stands."""
    for at in range(len(others) + 1):
        parts = [*others[:at], FIELD.format("model", "fast"), *others[at:]]
        sent = read(form(*parts), FORM, SPEECH, {"fast": Alias(model="m")}, MIB)
        assert sent.body == form(*[FIELD.format("model", "m") if one == parts[at] else one for one in parts])


@pytest.mark.parametrize(
    ("force", "policy"),
    [
        ({"prompt": "a\r\n--B\r\nContent-Disposition: form-data; name=x\r\n\r\n"}, FieldPolicy()),
        ({"prompt": "--B"}, FieldPolicy()),
        ({"prompt": {"a": 1}}, FieldPolicy()),
        ({"include": [["a"]]}, FieldPolicy()),
        ({'a"; name="b': 1}, ANY_FIELD),
    ],
)
def test_what_an_alias_cannot_say_in_a_form_is_told(force: dict[str, JsonValue], policy: FieldPolicy) -> None:
    """In the names that the client knows: a boundary that the client chose, an object, a strange name."""
    body = form(FIELD.format("model", "fast"))
    with pytest.raises(InvalidRequest, match=r"sets `.* form cannot say"):
        read(body, FORM, SPEECH, {"fast": Alias(model="real", force=force)}, MIB, policy)


def test_an_alias_in_a_part_of_several_names_is_refused() -> None:
    """A worker might take it for another field, which would be lost."""
    part = 'Content-Disposition: form-data; name=model; x; name="prompt"\r\n\r\nfast'
    with pytest.raises(InvalidRequest, match="several names"):
        read(form(part), FORM, SPEECH, {"fast": Alias(model="real")}, MIB)


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://media.example/x.png", False),
        ("https://MEDIA.example:443/x.png", False),
        ("https://media.example.evil/x.png", True),
        ("https://media.example@evil/x.png", True),
        ("ftp://media.example/x.png", True),
        ("https://[::1", True),
    ],
)
def test_media_from_where_a_card_allows(url: str, refused: bool) -> None:
    """The host decides, however the address is dressed up."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}],
    }
    assert (remote_media(parsed(body), {"media.example"}) is not None) is refused


CHAT_PART = {
    "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://h/x"}}]}]
}
SOURCE = {"type": "image", "source": {"type": "url", "url": "http://h/x"}}
FETCHED = [
    ("/v1/chat/completions", CHAT_PART),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "tool", "content": [{"video_url": {"url": "http://h/x"}}]}]},
    ),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"audio_url": "http://h/x", "uuid": "1"}]}]},
    ),
    (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://h/x"}]}]},
    ),
    ("/v1/responses", {"input": [{"type": "function_call_output", "output": [{"image_url": "http://h/x"}]}]}),
    ("/v1/messages", {"messages": [{"role": "user", "content": [SOURCE]}]}),
    (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [SOURCE]}]}]},
    ),
    ("/v1/embeddings", CHAT_PART),
    ("/v1/embeddings", {"input": CHAT_PART["messages"]}),
    ("/v1/embeddings", {"messages": [CHAT_PART["messages"], CHAT_PART["messages"]]}),
    (
        "/v1/score",
        {"data_1": "x", "data_2": {"content": [{"type": "image_url", "image_url": {"url": "http://h/x"}}]}},
    ),
    ("/v1/rerank", {"query": "x", "documents": [{"content": [{"image_url": {"url": "http://h/x"}}]}]}),
    ("/tokenize", CHAT_PART),
]
LINK = {
    "image_url": "http://h/x",
    "source": {"url": "http://h/x"},
    "deep": [{"video_url": {"url": "http://h/x"}}],
}
SOMEBODYS_TEXT = [
    (
        "/v1/messages",
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "input": LINK}]}]},
    ),
    ("/v1/messages", {"tools": [{"name": "t", "input_schema": {"properties": LINK, "examples": [LINK]}}]}),
    ("/v1/messages", {"metadata": LINK}),
    ("/v1/chat/completions", {"metadata": LINK, "tools": [{"function": {"parameters": {"example": LINK}}}]}),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": LINK}}]}]},
    ),
    (
        "/v1/chat/completions",
        {"response_format": {"json_schema": {"schema": LINK}}, "chat_template_kwargs": LINK},
    ),
    ("/v1/responses", {"metadata": LINK, "tools": [{"parameters": LINK}], "input": "image_url http://h/x"}),
    ("/v1/responses", {"input": [{"type": "function_call", "arguments": json.dumps(LINK), "action": LINK}]}),
    ("/v1/completions", {"prompt": "x", "metadata": LINK}),
    ("/v1/detokenize", LINK),
]


@pytest.mark.parametrize(("path", "body"), FETCHED)
def test_what_a_worker_would_fetch_is_seen(path: str, body: dict[str, object]) -> None:
    """In each place of each route's schema, also behind a name that is spelt with escapes."""
    plain = json.dumps(body | {"model": "m"})
    hidden = plain.replace("image_url", "im\\u0061ge_\\u0075rl").replace("url", "\\u0075rl")
    for text in (plain, hidden):
        found = read(text.encode(), b"application/json", route(path), {}, MIB)
        assert remote_media(found) == "http://h/x"
        assert remote_media(found, {"h"}) is None


@pytest.mark.parametrize(("path", "body"), SOMEBODYS_TEXT)
def test_what_no_worker_fetches_is_anybodys_text(path: str, body: dict[str, object]) -> None:
    """A tool's input, a schema, an example, metadata: whatever their keys are called."""
    assert remote_media(parsed(body | {"model": "m"}, route(path))) is None


parameters = some.dictionaries(some.text("abc", max_size=2), some.none() | some.integers(), max_size=5)


@given(parameters, parameters, parameters)
def test_an_alias_forces_fills_in_and_changes_nothing_else(
    request: dict[str, int | None], force: dict[str, int | None], default: dict[str, int | None]
) -> None:
    """Forced ones are the alias's, defaults stand where the client says nothing or null, all else is the client's."""
    default = {key: value for key, value in default.items() if key not in force}
    alias = Alias(model="big", force=force, default=default)
    body = json.dumps({**request, "model": "fast"}).encode()
    made = json.loads(read(body, b"application/json", EMBEDDINGS, {"fast": alias}, MIB).body)
    assert made.keys() == request.keys() | force.keys() | default.keys() | {"model"}
    for key, value in made.items():
        said = request.get(key)
        expected = force[key] if key in force else default.get(key) if said is None else said
        assert value == ("big" if key == "model" else expected)


AWKWARD = '"seed" : 12345678901234567890123,"x":[1.0,1E5, 0.1000],  "d":1,"d":2 ,"\\u0065":"\\/"'


@pytest.mark.parametrize(
    ("member", "put"),
    [
        ('"stream_options": null', '"stream_options": {"include_usage":true}'),
        ('"stream_options" : { }', '"stream_options" : {"include_usage":true }'),
        ('"stream_options":{"z":1e2}', '"stream_options":{"include_usage":true,"z":1e2}'),
        ('"stream_options":{"include_usage" :false}', '"stream_options":{"include_usage" :true}'),
        ('"stream_options":{"include_\\u0075sage":null}', '"stream_options":{"include_\\u0075sage":true}'),
    ],
)
def test_what_is_put_in_leaves_every_other_byte_alone(member: str, put: str) -> None:
    """Numbers, order, blanks, escapes, repeated names."""
    body = f'{{ "model":"m",{AWKWARD},{member}, "stream":true }}\n'
    sent = read(body.encode(), b"application/json", CHAT, {}, MIB)
    assert sent.body.decode() == body.replace(member, put)
    assert sent.hides_usage


def test_an_alias_leaves_every_other_byte_alone() -> None:
    """Likewise; what it adds comes first."""
    body = f'{{ {AWKWARD}, "temperature": 1.50,"model" :"fast" }}'
    sent = read(body.encode(), b"application/json", EMBEDDINGS, FAST, MIB)
    expected = body.replace("1.50", "0").replace('"fast"', '"m"').replace("{", '{"max_tokens":5,', 1)
    assert sent.body.decode() == expected


@pytest.mark.parametrize(
    "name", ["model", "stream", "stream_options", "previous_response_id", "user", "temperature"]
)
def test_what_the_gateway_acts_on_stands_there_once(name: str) -> None:
    """Two readers may take two values of what is said twice."""
    body = f'{{"model":"fast","{name}":null,"x":1,"\\u{ord(name[0]):04x}{name[1:]}":null}}'
    with pytest.raises(InvalidRequest, match="twice"):
        read(body.encode(), b"application/json", CHAT, FAST, MIB)


@pytest.mark.parametrize(
    "options",
    [
        '[0,0]', '[[0],[0]]', '[{"include_usage":true},{"include_usage":true}]', '[{"x":1,"x":2}]', '[]', '7',
        '"include_usage"', 'true',
    ],
)  # fmt: skip
def test_options_that_are_no_object_are_the_workers_to_refuse(options: str) -> None:
    """A list of several values is not a member that stands there several times: the worker says what it wants."""
    body = f'{{"model":"m","stream":true,"stream_options":{options}}}'
    assert read(body.encode(), b"application/json", CHAT, {}, MIB).body.decode() == body


@pytest.mark.parametrize("body", ['[{"model":"m"}]', '[{"model":"m"},{"model":"m"}]', '[[{"model":"m"}]]'])
def test_a_list_is_no_body(body: str) -> None:
    """Whatever the objects in it name."""
    with pytest.raises(InvalidRequest, match="must be a JSON object"):
        read(body.encode(), b"application/json", CHAT, {}, MIB)


def test_a_list_that_an_alias_sets_may_have_many_elements() -> None:
    """The addresses of media in it are found all the same."""
    alias = {"fast": Alias(model="m", force={"messages": []})}
    url = "https://example.com/a.png"
    image = {"type": "image_url", "image_url": {"url": url}}
    body = {
        "model": "fast",
        "messages": [{"role": "user", "content": [image]}, {"role": "user", "content": "x"}],
    }
    sent = read(json.dumps(body).encode(), b"application/json", CHAT, alias, MIB)
    assert json.loads(sent.body) == {"model": "m", "messages": []}
    assert sent.addresses == [url]


def test_a_byte_order_mark_is_dropped() -> None:
    """Some editors and languages write one before any text."""
    sent = read(b'\xef\xbb\xbf{"model":"m"}', b"application/json", CHAT, {}, MIB)
    assert sent.body == b'{"model":"m"}'


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_unicode_is_told(coding: str) -> None:
    """A worker might read it, where we do not."""
    with pytest.raises(InvalidRequest, match="UTF-16 or UTF-32"):
        read('{"model":"m"}'.encode(coding), b"application/json", CHAT, {}, MIB)


@pytest.mark.parametrize("size", [0, 256 * 1024 - 12, 600_000])
@pytest.mark.parametrize("wrong", [b"\xff", b"\xe4\xbd", b"\xed\xa0\x80", b"\xc0\x80"])
def test_what_is_no_utf_8_is_told(size: int, wrong: bytes) -> None:
    """Anywhere in a body."""
    body = b'{"model":"m","x":"' + "你".encode() * (size // 3) + b"%b" + b'"}'
    assert read(body % b"", b"application/json", CHAT, {}, MIB).model == "m"
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read(body % wrong, b"application/json", CHAT, {}, MIB)


@pytest.mark.parametrize("offset", range(24))
def test_media_are_seen_wherever_a_slice_ends(offset: int) -> None:
    """The mark of media may lie across two of the pieces that a body is sifted in."""
    body = b'{"model":"m","x":"%b","messages":[{"content":[{"image_url":"http://h/x"}]}]}'
    body %= b"y" * (256 * 1024 - 60 + offset)
    assert remote_media(read(body, b"application/json", CHAT, {}, MIB)) == "http://h/x"


@pytest.mark.parametrize(
    "part",
    [
        "Content-Disposition: form-data; name*=utf-8''model\r\n\r\nother",
        'Content-Disposition: form-data; name="mod\\el"\r\n\r\nother',
        'Content-Disposition: form-data\n; name="model"\r\n\r\nother',
        'Content-Disposition: form-data; x="\r"; name="model"\r\n\r\nother',
        "Content-Disposition: form-data; x=" + "y" * 9000 + '; name="model"\r\n\r\nother',
    ],
)
def test_a_second_model_of_a_form_cannot_hide(part: str) -> None:
    """What a worker may take for the field is refused, where it could not be told apart."""
    body = form(FIELD.format("model", "m"), part)
    with pytest.raises(InvalidRequest):
        read(body, b"multipart/form-data; boundary=B", SPEECH, {}, MIB)


def test_a_file_may_hold_anything_but_the_boundary_on_a_line_of_its_own() -> None:
    """Also what looks like it, and brackets and names."""
    file = FILE + ' --B\r\nContent-Disposition: form-data; name="model"\r\n\r\nother' + "--B" * 2000
    body = form(FIELD.format("model", "m"), file)
    assert read(body, b"multipart/form-data; boundary=B", SPEECH, {}, MIB).model == "m"
    with pytest.raises(InvalidRequest, match="parts"):
        read(form(*["x"] * 1001), b"multipart/form-data; boundary=B", SPEECH, {}, MIB)


@given(
    some.dictionaries(
        some.sampled_from(
            ["model", "stream", "stream_options", "user", "previous_response_id", "x", "messages"]
        ),
        some.sampled_from(
            ["m", "fast", "", True, False, None, 1, {"include_usage": False}, [{"role": "user"}], "é"]
        ),
    ),
    some.booleans(),
    some.sampled_from([b"", b',"model":"n"}', b',"stream":true}', b',"x":1e400}', b"]", b',"x":"\\ud800"}']),
)
def test_small_bodies_are_read_as_large_ones(fields: dict[str, object], compact: bool, end: bytes) -> None:
    """A parser reads the small ones, a scan the others: of the same text, with blanks behind it, both say the same."""
    text = json.dumps(fields, separators=(",", ":") if compact else None, ensure_ascii=compact).encode()
    text = text[:-1] + end if end and fields else text
    said: list[object] = []
    for body in (text, text + b" " * SMALL_BYTES):
        try:
            one = read(body, b"application/json", CHAT, FAST, MIB)
        except InvalidRequest as error:
            said.append(error.message)
        else:
            values = {name: one.fields.get(name) for name in ("user", "previous_response_id", "stream")}
            used = {name: None if isinstance(value, dict | list) else value for name, value in values.items()}
            said.append(
                (
                    one.model,
                    one.body.rstrip(),
                    used,
                    one.stream,
                    one.hides_usage,
                    one.alias,
                    list(one.addresses),
                )
            )
    assert said[0] == said[1] or "byte" in str(said[0])


@pytest.mark.parametrize("name", ["user", "previous_response_id", "stream"])
@pytest.mark.parametrize("value", ["[" + "[]," * 240_000 + "1]", '{"a":' + "[" + "{}," * 240_000 + "1]}"])
def test_nothing_is_built_of_a_long_value_where_a_short_one_belongs(name: str, value: str) -> None:
    """It goes to the worker as it is, and to the gateway it is as if nothing were there."""
    reading = READER.begin(b'{"model":"m","%b":%b}' % (name.encode(), value.encode()), b"", CHAT)
    while not reading.advance():
        pass
    tracemalloc.start()
    found = reading.parsed()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.fields[name], found.stream) == (None, False)
    assert peak < 64 * 1024


def test_long_options_of_a_stream_are_refused() -> None:
    """They are an object of two members, and read in one go."""
    body = b'{"model":"m","stream":true,"stream_options":{"a":[' + b"[]," * 5000 + b"[]]}}"
    with pytest.raises(InvalidRequest, match="longer"):
        read(body, b"application/json", CHAT, {}, MIB)


def test_a_large_body_is_not_copied() -> None:
    """What is put in between its bytes goes with them in parts: each is what the client has sent, or small."""
    body = b'{"model":"m","stream":true,"messages":[],"x":"%b","stream_options":{}}' % (b"x" * 3 * MIB)
    found = read(body, b"application/json", CHAT, {}, 4 * MIB)
    assert b"".join(found.parts) == body.replace(b"{}}", b'{"include_usage":true}}')
    assert found.size == sum(map(len, found.parts))
    assert found.body is body
    views = [part.obj for part in found.parts if isinstance(part, memoryview)]
    assert views == [body] * len(views)
    assert len(b"".join(part for part in found.parts if isinstance(part, bytes))) < 100


@pytest.mark.parametrize("route", PARTS)
def test_every_place_of_an_address_has_a_name_that_brings_a_body_to_the_scan(route: str) -> None:
    """Else a worker would fetch what nobody has looked at: small bodies need one of NAMES, others of MEDIA_MARKS."""
    for path in addresses_of(route):
        names = [b'"%b"' % name.encode() for name in path.split(".")]
        assert any(NAMES.fullmatch(name) for name in names), path
        assert any(mark in name for mark in MEDIA_MARKS for name in names), path
