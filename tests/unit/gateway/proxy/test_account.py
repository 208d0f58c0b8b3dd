"""What a request may cost, and what it is charged in the end."""

from __future__ import annotations

import json

import pytest

from gateway.api.routes import TABLE, Route
from gateway.config.api_keys import ApiKey, Limits
from gateway.limits.estimates import MOST_TOKENS, Cost, Estimates, Model
from gateway.limits.limiter import Limiter
from gateway.limits.table import Table
from gateway.proxy.account import Account, cost_of, used_of
from gateway.proxy.token_usage import Tokens
from tests.reading import read

ROUTES: dict[str, Route] = {route.name: route for route in TABLE}
CHAT = ROUTES["chat_completions"]
KEY = ApiKey("a", "a", limits=Limits(rpm=1000, tpm_in=10**6, tpm_out=10**6, monthly_tokens=10**9))


def limiter() -> Limiter:
    return Limiter(Table(rows=8), lambda: [KEY])


def used(one: Limiter) -> dict[str, int]:
    return {use.limit: use.used for use in one.uses()}


def account(one: Limiter, estimates: Estimates, body: dict[str, object], route: Route = CHAT) -> Account:
    parsed = read(json.dumps({"model": "m", **body}).encode(), b"application/json", route, {}, 1 << 20)
    return Account(one, estimates, KEY, route, "m", parsed)


@pytest.mark.parametrize(
    ("fields", "out"),
    [
        ({}, 257),
        ({"n": 3}, 769),
        ({"max_tokens": 10}, 10),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ({"max_completion_tokens": 1, "max_tokens": 30000}, 30000),  # a route may know but one of them
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens": None}, 257),
        ({"max_tokens": -1, "n": 0}, 257),
        ({"max_tokens": "12"}, 12),
        ({"max_tokens": [1], "n": {}}, 257),
        ({"max_tokens": 0}, 0),
        ({"n": 10**9, "max_tokens": 1}, 128),
        ({"n": 128, "max_tokens": 10**30}, 128 * MOST_TOKENS),
        ({"max_tokens": "9" * 15}, MOST_TOKENS),
    ],
)
def test_an_answer_may_be_as_long_as_it_is_allowed(fields: dict[str, object], out: int) -> None:
    """Or as long as answers are on average, if the client does not say."""
    cost = cost_of(Model(), CHAT, 100, fields)
    assert (cost.requests, cost.tokens_in, cost.tokens_out) == (1, 31, out)


@pytest.mark.parametrize("size", [10, 40_000])
@pytest.mark.parametrize(
    ("written", "out"), [(b"5", 5), (b'"5"', 5), (b"null", 257), (b'"' + b"9" * 30 + b'"', 257), (b"5.5", 257)]
)  # fmt: skip
def test_large_bodies_are_reserved_as_small_ones(size: int, written: bytes, out: int) -> None:
    """Parsed or scanned."""
    text = b'{"model":"m","max_tokens":%b,"messages":[{"role":"user","content":"%b"}]}' % (
        written,
        b"x" * size,
    )
    parsed = read(text, b"application/json", CHAT, {}, 1 << 20)
    cost = cost_of(Model(), CHAT, parsed.size - parsed.media_bytes, parsed.fields)
    assert cost.tokens_out == out
    assert cost.tokens_in == int(len(text) * 0.3) + 1


@pytest.mark.parametrize(
    ("route", "part"),
    [
        ("chat_completions", {"type": "image_url", "image_url": {"url": "data:image/png;base64,%s"}}),
        ("chat_completions", {"type": "input_audio", "input_audio": {"data": "%s", "format": "wav"}}),
        ("responses", {"type": "input_image", "image_url": "data:image/png;base64,%s"}),
        (
            "messages",
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%s"}},
        ),
    ],
)
def test_media_are_no_text(route: str, part: dict[str, object]) -> None:
    """Wherever a body may hold them, their bytes are not taken for tokens."""
    written = json.dumps(part).replace("%s", "A" * 500_000)
    where = "input" if route == "responses" else "messages"
    body = b'{"model":"m","%b":[{"role":"user","content":[%b]}]}' % (where.encode(), written.encode())
    parsed = read(body, b"application/json", ROUTES[route], {}, 1 << 20)
    assert parsed.size - parsed.media_bytes < 300


def test_estimates_follow_what_workers_say() -> None:
    """Prompts by their bytes, if they hold nothing but text; answers by their mean. Nothing is learned of a failure."""
    one, estimates = limiter(), Estimates()
    for _ in range(100):
        account(one, estimates, {"prompt": "x" * 979}).close(
            (500, 40, 0), attempts=1, ending="complete", answered=True
        )
    assert estimates.of("m").per_byte == pytest.approx(0.5, rel=0.02)
    assert estimates.of("m").out == pytest.approx(40)
    account(one, estimates, {"prompt": "x"}).close(
        (500, 9999, 0), attempts=1, ending="client_gone", answered=True
    )
    assert estimates.of("m").out == pytest.approx(40)
    assert estimates.of("other").out == 256


def test_the_mean_is_of_one_answer() -> None:
    """However many a request asks for: the reservation is for as many as the next one asks for."""
    estimates = Estimates()
    account(limiter(), estimates, {"n": 4}).close((10, 400, 0), attempts=1, ending="complete", answered=True)
    assert estimates.of("m").out == pytest.approx(100)
    assert cost_of(estimates.of("m"), CHAT, 0, {"n": 4}).tokens_out == 401


def test_what_was_not_in_the_body_does_not_count_for_others() -> None:
    """A short request behind which a long stored conversation is, or a template, does not raise what all requests to
    the model are thought to cost."""
    estimates = Estimates()
    for _ in range(64):
        account(limiter(), estimates, {"prompt": "x" * 3979}).close(
            (1000, 10, 0), attempts=1, ending="complete", answered=True
        )
    for _ in range(3):
        account(limiter(), estimates, {"input": "go on"}, ROUTES["responses"]).close(
            (120_000, 10, 0), attempts=1, ending="complete", answered=True
        )
    assert estimates.of("m").per_byte == pytest.approx(0.25, rel=0.02)


def test_an_absurd_length_holds_nothing_for_ever() -> None:
    """The client may write a number that no word of the table takes; the requests at a time stay right."""
    key = ApiKey("b", "b", limits=Limits(concurrency=2, rpm=100))
    one = Limiter(Table(rows=8), lambda: [key])
    for _ in range(5):
        for size in (2**63 - 1, 2**64 - 1, 10**40):
            fields = b'{"model":"m","max_tokens":%d,"n":100}' % size
            parsed = read(fields, b"application/json", CHAT, {}, 1 << 20)
            Account(one, Estimates(), key, CHAT, "m", parsed).close(
                None, attempts=1, ending="complete", answered=False
            )
    assert used(one) == {"rpm": 15, "concurrency": 0}


def test_routes_that_generate_nothing() -> None:
    """Embeddings cost prompt tokens; what only counts tokens costs none, and neither does a stored response, whose
    tokens were counted when it was made."""
    one = limiter()
    account(one, Estimates(), {"input": "x" * 1000}, ROUTES["embeddings"])
    assert used(one)["tpm_out"] == 0
    assert used(one)["tpm_in"] > 300
    for name in ("tokenize", "count_tokens"):
        one = limiter()
        account(one, Estimates(), {"prompt": "x" * 1000}, ROUTES[name])
        assert (used(one)["rpm"], used(one)["tpm_in"], used(one)["tpm_out"]) == (1, 0, 0)
    one = limiter()
    parsed = read(b"", b"", ROUTES["response"], {}, 1000)
    Account(one, Estimates(), KEY, ROUTES["response"], "m", parsed).close(
        (500, 500, 0), attempts=1, ending="complete", answered=True
    )
    assert used(one) == {"rpm": 1, "tpm_in": 0, "tpm_out": 0, "monthly_tokens": 0}


@pytest.mark.parametrize(
    ("tokens", "attempts", "ending", "answered", "charged"),
    [
        ((7, 8, 0), 1, "complete", True, (7, 8)),
        ((7, 8, 0), 1, "client_gone", True, (7, 8)),
        (
            (0, 8, 0),
            1,
            "client_gone",
            True,
            (3, 8),
        ),  # a stream that tells its prompt at the end, which did not come
        (None, 0, "refused", False, None),  # the gateway's own refusal: queue full, no worker
        (None, 0, "client_gone", False, None),  # it left the queue
        (None, 1, "client_gone", False, (3, 4)),  # a worker was at work
        (None, 1, "client_gone", True, (3, 4)),
        (None, 1, "broken", True, (3, 4)),
        (None, 1, "complete", True, (3, 4)),  # it told no usage
        (None, 2, "refused", False, (0, 0)),  # no worker could be reached, or all were too slow
        (None, 1, "complete", False, (0, 0)),  # the worker's own error
        (None, 1, "broken", False, (0, 0)),
    ],
)
def test_what_is_charged(
    tokens: Tokens | None, attempts: int, ending: str, answered: bool, charged: tuple[int, int] | None
) -> None:  # fmt: skip
    """What the worker said; else what was reserved, if work was done for it; else nothing but the request."""
    found = used_of(Cost(3, 4), tokens, attempts=attempts, ending=ending, answered=answered)
    assert (found and (found.tokens_in, found.tokens_out)) == charged
