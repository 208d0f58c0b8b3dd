"""What a body says: its model, whether it streams, whose usage it wants; and what is refused."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.bodies import MOST_DEPTH, Asked, read, remote_media
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.models import Alias
from gateway.routes import Route, Routes

ROUTES, MIB = Routes(), 1024 * 1024


def route(path: str) -> Route:
    found = ROUTES.find(path.encode())
    assert found is not None
    return found


CHAT, EMBEDDINGS, SPEECH = (
    route("/v1/chat/completions"), route("/v1/embeddings"), route("/v1/audio/transcriptions"),
)  # fmt: skip


def asked(body: object, at: Route = CHAT) -> Asked:
    return read(json.dumps(body).encode(), b"application/json", at, {}, MIB)


anything = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
)


@given(some.dictionaries(some.text(max_size=5), anything), some.text(min_size=1))
def test_the_model_is_found_in_any_object(rest: dict[str, object], model: str) -> None:
    """Whatever else a body holds, its model is the one it names."""
    assert asked(rest | {"model": model}).model == model


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
    sent = asked(body)
    assert json.loads(sent.body) == body | {"stream_options": {"include_usage": True}}
    assert sent.body.endswith(json.dumps(body).encode()[1:])
    assert sent.hides_usage
    assert asked(body | {"stream": False}).body == json.dumps(body | {"stream": False}).encode()
    assert asked(body, EMBEDDINGS).body == json.dumps(body).encode()


@pytest.mark.parametrize(
    ("options", "sent", "hides"),
    [
        ({"include_usage": True}, {"include_usage": True}, False),
        ({"include_usage": False}, {"include_usage": True}, True),
        ({"continuous_usage_stats": True}, {"include_usage": True}, True),
        (None, {"include_usage": True}, True),
        ("nonsense", "nonsense", True),
    ],
)
def test_whose_usage_it_is(options: object, sent: object, hides: bool) -> None:
    """Who asked for it gets it; nonsense is left to the worker's own words."""
    found = asked({"model": "m", "stream": True, "stream_options": options})
    assert (json.loads(found.body)["stream_options"], found.hides_usage) == (sent, hides)


def nested(levels: int) -> dict[str, object]:
    value: object = 1
    for level in range(levels):
        value = [value] if level % 2 else {"x": value}
    return {"model": "m", "x": value}


def test_a_text_beyond_its_bound_is_not_parsed() -> None:
    """Only images and sound make a body so large."""
    text, image = {"role": "user", "content": "x" * MIB}, {"image_url": {"url": "data:,"}}
    with pytest.raises(RequestTooLarge):
        asked({"model": "m", "messages": [text]})
    assert asked({"model": "m", "messages": [text, image]}).model == "m"


@pytest.mark.parametrize("part", [b"[],", b"{},", b"0,"])
def test_values_are_bounded(part: bytes) -> None:
    """A few million small ones would take the memory of gigabytes, and the loop's time."""
    body = b'{"model":"m","image_url":[' + part * 4_000_001 + b"0]}"
    with pytest.raises(InvalidRequest, match="objects"):
        read(body, b"application/json", CHAT, {}, MIB)


def test_depth_is_bounded() -> None:
    """As deep as allowed passes, one deeper does not; many shallow objects do."""
    assert asked(nested(MOST_DEPTH - 1)).model == "m"
    with pytest.raises(InvalidRequest, match="deeper"):
        asked(nested(MOST_DEPTH))
    assert asked({"model": "m", "x": [{}] * 1000}).model == "m"


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
    assert asked({"model": "m", "tools": [{"model": "x"}], "text": '"model"'}).model == "m"


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
    assert remote_media(asked({"model": "m", "messages": [{"role": "user", "content": [part]}]})) == found


FAST = {"fast": Alias(model="m", force={"temperature": 0}, default={"max_tokens": 5})}


def test_an_alias_is_sent_as_its_model() -> None:
    """With the parameters it forces, and those it fills in; the worker knows nothing of the alias."""
    given_body = {"model": "fast", "temperature": 1, "stream": True}
    sent = read(json.dumps(given_body).encode(), b"application/json", CHAT, FAST, MIB)
    assert json.loads(sent.body) == {
        "model": "m", "temperature": 0, "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert (sent.model, sent.alias) == ("m", FAST["fast"])


def test_an_alias_is_not_for_forms() -> None:
    """A form is not written anew."""
    with pytest.raises(InvalidRequest, match="alias"):
        read(form(FIELD.format("model", "fast")), b"multipart/form-data; boundary=B", SPEECH, FAST, MIB)


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
    assert (remote_media(asked(body), {"media.example"}) is not None) is refused
