"""What a key brings into a body: a salt of the prefix cache and, where vLLM takes it from the body, a priority."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.api.routes import TABLE, Kind, Route
from gateway.body.reader import BodyReader
from gateway.config.api_keys import ANYONE, CLASS_SPAN, ApiKey, Priority, salt_from
from gateway.config.field_policy import FieldPolicy, Mode
from gateway.config.model_options import Alias

SALT = salt_from(b"secret", b"x")
KEY = ApiKey("a", priority=Priority.BULK, salt=SALT)
UNSALTED = ApiKey("b")
READER = BodyReader(
    {
        "short": Alias(model="m", force={"max_tokens": 5}),
        "apart": Alias(model="m", force={"cache_salt": "zz", "priority": 5}),
    },
    1 << 20,
    FieldPolicy(Mode.PERMISSIVE, ["cache_salt"]),
)
JSON_ROUTES = [one for one in TABLE if one.kind is Kind.JSON]
SALTED = {
    "chat_completions", "completions", "responses", "messages", "embeddings", "rerank", "score", "pooling", "classify"
}  # fmt: skip
POOLED = {"embeddings", "rerank", "score", "pooling", "classify"}
values = some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(max_size=9)
names = some.just("cache_salt") | some.text(max_size=9).map("x".__add__)  # of the others, none is judged


def sent(body: dict[str, Any], route: Route, key: ApiKey, *, padding: int = 0) -> dict[str, Any]:
    """What a worker gets, by a parser that refuses a name that stands twice. padding: makes the body a large one."""
    whole = json.dumps(body | ({"padding": " " * padding} if padding else {})).encode()
    reading = READER.begin(whole, b"application/json", route, key)
    while not reading.advance():
        pass
    parsed = reading.parsed()
    assert parsed.size == sum(len(part) for part in parsed.parts)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    found: dict[str, Any] = json.loads(b"".join(parsed.parts), object_pairs_hook=once)
    found.pop("padding", None)
    if body.get("stream") is True and route.asks_usage:
        found.pop("stream_options")
    return found


def brought(route: Route, key: ApiKey, own: object = None) -> dict[str, Any]:
    """What is to stand in the body. own: the client's priority."""
    members: dict[str, Any] = {"cache_salt": key.salt.decode()} if route.salts and key.salt else {}
    return members | ({"priority": key.priority.at_engine(own)} if route.pools else {})


def test_routes_are_as_vllm_has_them() -> None:
    """Its models of requests have `cache_salt` on these, and `priority` but no header for it on those."""
    assert {one.name for one in TABLE if one.salts} == SALTED
    assert {one.name for one in TABLE if one.pools} == POOLED


@pytest.mark.parametrize("padding", [0, 20_000, 2_000_000])
@pytest.mark.parametrize("route", JSON_ROUTES, ids=lambda route: route.name)
def test_a_body_of_any_size_gets_what_the_key_brings(route: Route, padding: int) -> None:
    """And is otherwise the client's own; with an alias, and for a stream too."""
    # Lets it be that large.
    media = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": media if padding else "a"}],
    }
    for more in ({}, {"stream": True}, {"stream": False, "user": "u"}):
        asked = body | more
        assert sent(asked, route, ANYONE, padding=padding) == asked
        for key in (KEY, UNSALTED):
            assert sent(asked, route, key, padding=padding) == asked | brought(route, key)
    aliased = sent(body | {"model": "short"}, route, KEY, padding=padding)
    assert aliased == body | {"max_tokens": 5} | brought(route, KEY)


@given(some.dictionaries(names, values), some.sampled_from(JSON_ROUTES), some.booleans())
def test_what_the_client_sends_itself_never_stands_beside_it(
    rest: dict[str, Any], route: Route, stream: bool
) -> None:
    """Whatever else is in the body."""
    body = {**rest, "model": "m", "stream": stream}
    own = (
        {"cache_salt": rest["cache_salt"]} if isinstance(rest.get("cache_salt"), str) and route.salts else {}
    )
    found = sent(body, route, KEY)
    if not own:
        assert found == body | brought(route, KEY, rest.get("priority"))


@pytest.mark.parametrize("padding", [0, 20_000])
def test_a_clients_own_salt_makes_another_of_the_keys(padding: int) -> None:
    """Two requests find each other's prompts if key and own salt are the same, and only then."""
    route = JSON_ROUTES[0]
    body = {"model": "m", "messages": []}

    def salt(own: object, key: ApiKey) -> str:
        return str(sent(body | {"cache_salt": own}, route, key, padding=padding)["cache_salt"])

    other = ApiKey("c", salt=salt_from(b"secret", b"y"))
    found = [salt(own, key) for key in (KEY, other) for own in ("", "mine", SALT.decode())]
    assert len({*found, SALT.decode(), other.salt.decode()}) == 8
    assert salt("mine", KEY) == salt("mine", KEY)
    assert salt(None, KEY) == salt(7, KEY) == salt(["a"], KEY) == SALT.decode()
    assert salt("mine", UNSALTED) == "mine"


@pytest.mark.parametrize("own", [{}, {"cache_salt": "q", "priority": 3}])
@pytest.mark.parametrize("route", [one for one in JSON_ROUTES if one.pools], ids=lambda route: route.name)
def test_an_alias_sets_them_within_what_the_key_has(route: Route, own: dict[str, Any]) -> None:
    """Neither stands twice, nor becomes a mixture of two: the priority stays of the key's class, the salt secret."""
    found = sent({"model": "apart", "input": "x"} | own, route, KEY)
    assert found["priority"] == Priority.BULK * CLASS_SPAN + 5
    assert found["cache_salt"] == salt_from(SALT, b"zz").decode()


@pytest.mark.parametrize("padding", [0, 20_000])
@pytest.mark.parametrize(
    ("own", "within"),
    [
        (3, 3),
        (0, 0),
        (-5, 0),
        (10**6, CLASS_SPAN - 1),
        (10**18, CLASS_SPAN - 1),
        ("3", 0),
        (None, 0),
        ([1], 0),
    ],
)
def test_a_client_orders_its_own_requests_within_its_class(own: object, within: int, padding: int) -> None:
    """It neither overtakes a higher class nor falls behind a lower one."""
    route = next(one for one in TABLE if one.name == "embeddings")
    lifted = BodyReader({}, 1 << 20, FieldPolicy(Mode.PERMISSIVE, ["priority"]))
    for priority in Priority:
        body = json.dumps({"model": "m", "priority": own, "padding": " " * padding}).encode()
        reading = lifted.begin(body, b"", route, ApiKey("a", priority=priority))
        while not reading.advance():
            pass
        assert json.loads(b"".join(reading.parsed().parts))["priority"] == priority * CLASS_SPAN + within


@pytest.mark.parametrize(
    ("written", "read"),
    [('"flex"', "flex"), ('"\\ud800"', None), ("5", 5), ("[[]]", [[]]), ('"' + "f" * 200 + '"', None)],
)
def test_a_wrong_hint_is_the_workers_to_refuse(written: str, read: object) -> None:
    """Where only the place in the queue follows from a member, the gateway goes by what it can read, and twice is no
    fault."""
    body = b'{"model":"m","service_tier":%b,"padding":"%b"}' % (written.encode(), b" " * 20_000)
    for asked in (body, body.replace(b'"model"', b'"service_tier":"auto","model"')):
        reading = READER.begin(asked, b"", JSON_ROUTES[0], ANYONE)
        while not reading.advance():
            pass
        assert reading.parsed().fields["service_tier"] == read
