"""A key file with rights: who is let in, what exists for whom, what log and metrics say of it, and how it changes."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.api_keys import hash_key
from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import CHAT, Gateway, Site, ask, run_to_its_end, wait_until

ALIASES = """
aliases:
  short: {model: alpha, force: {max_tokens: 5}}
  long: {model: beta, force: {max_tokens: 500}}
"""
RELOAD_S = 5.0  # in which a change of the file counts


def entry(name: str, more: str = "") -> str:
    """An entry whose key is `sk-` and its name."""
    return f"  {name}: {{sha256: [{hash_key(b'sk-' + name.encode())}]{more}}}\n"


KEYS = "".join([
    "keys:\n", entry("all"), entry("alphas", ", models: [alpha]"), entry("betas", ", models: [beta]"),
    entry("shorts", ", models: [short]"), entry("late", ", expires: 2026-01-01"),
    entry("gone", ", revoked: 2026-01-01"),
    entry("early", ", not_before: 2100-01-01"),
])  # fmt: skip


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


def post(gateway: Gateway, name: str, body: dict[str, Any], path: str = CHAT) -> httpx.Response:
    return gateway.http.post(path, json=body, headers=bearer(name))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A key file with a key of each kind."""
    path = tmp_path / "keys"
    path.write_text(KEYS)
    return path


@pytest.fixture
def gateway(
    site: Site, start_gateway: StartGateway, own_worker: FakeWorker, start_worker: StartWorker, keys: Path
) -> Gateway:
    """A gateway with these keys and aliases, of which `alpha` and `beta` are ready and `absent` is not."""
    for slug in ("beta", "absent"):
        site.declare(slug, slug)
    site.attach({"alpha": [own_worker], "beta": [start_worker("beta")]})
    models = keys.with_name("models.yaml")
    models.write_text(ALIASES)
    allowed = "max_tokens"  # an alias forces it; with a rule it might stand once, whatever the model
    started = start_gateway(
        GATEWAY_API_KEYS_FILE=keys, GATEWAY_MODELS_FILE=models, GATEWAY_ALLOWED_FIELDS=allowed
    )
    started.wait_for("beta", "ready")
    return started


def test_who_is_not_let_in_is_told_why(gateway: Gateway, own_worker: FakeWorker) -> None:
    """Each with 401 and the reason, on every route that needs a key; no worker is asked."""
    own_worker.forget()
    told = {
        "late": "This API key expired at 2026-01-01T23:59:59Z",
        "gone": "This API key was revoked at 2026-01-01T00:00:00Z",
        "early": "This API key is not valid before 2100-01-01T00:00:00Z",
        "foreign": "This API key is unknown",
        "octet-cut": "This API key is malformed",
        hash_key(b"sk-all"): "This API key is unknown",
        "": "This API key is unknown",
    }
    for name, why in told.items():
        for answer in (
            post(gateway, name, ask("alpha")),
            gateway.http.get("/v1/models", headers=bearer(name)),
            gateway.http.get("/v1/models/alpha", headers=bearer(name)),
            gateway.http.get("/v1/responses/resp_1", headers=bearer(name)),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (401, "invalid_api_key")
            assert error["message"].startswith(why)
    assert own_worker.seen.empty()


ROUTES = [
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
    "/v1/embeddings", "/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score", "/v1/pooling", "/v1/classify",
    "/tokenize", "/v1/detokenize",
]  # fmt: skip
FORMS = ["/v1/audio/transcriptions", "/v1/audio/translations"]
FORBIDDEN = {  # what exists, and a key that may not use it
    "alpha": "betas", "beta": "alphas", "absent": "alphas", "short": "betas", "long": "alphas",
}  # fmt: skip


def told_of(
    gateway: Gateway, key: str, name: str, path: str, **more: object
) -> tuple[int, str, dict[str, str]]:
    """What a client is told of a model, with the model's name replaced."""
    if path in FORMS:
        files = {"model": (None, name.encode()), "file": ("a.wav", b"RIFF")}
        answer = gateway.http.post(path, files=files, headers=bearer(key))
    elif path == "/v1/models":
        answer = gateway.http.get(f"{path}/{name}", headers=bearer(key))
    else:
        answer = gateway.http.post(path, json=ask(name) | more, headers=bearer(key))
    headers = {
        one: answer.headers[one] for one in sorted(answer.headers) if one not in ("date", "x-request-id")
    }
    headers.pop("content-length")
    return answer.status_code, answer.text.replace(name, "NAME"), headers


def test_a_model_that_a_key_may_not_use_does_not_exist(gateway: Gateway, own_worker: FakeWorker) -> None:
    """Ready or not, model or alias, by every route: the very words, and headers, of a name that nobody declared."""
    own_worker.forget()
    for path in [*ROUTES, *FORMS, "/v1/models"]:
        for name, key in FORBIDDEN.items():
            status, body, headers = told = told_of(gateway, key, name, path)
            assert told == told_of(gateway, key, "xx" + name[2:], path), path
            assert (status, headers["x-gateway-error"]) == (404, "model_not_found")
            assert "NAME" in body
            others = {"alpha", "beta", "absent", "short", "long"} - {name, key[:-1]}
            assert not [other for other in others if other in body]
    assert own_worker.seen.empty()


STRANGE: list[dict[str, object]] = [
    {"max_tokens": None}, {"stream": True}, {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://elsewhere.example/a.png"}}]}]},
    {"previous_response_id": "resp_1"}, {"input": "x" * 20_000},
]  # fmt: skip


def test_what_else_is_in_the_body_does_not_betray_a_model(gateway: Gateway) -> None:
    """Nor does a member that an alias would force and that stands there twice."""
    for more, (name, key) in itertools.product(STRANGE, FORBIDDEN.items()):
        for path in ("/v1/chat/completions", "/v1/responses"):
            told = told_of(gateway, key, name, path, **more)
            assert told == told_of(gateway, key, "xx" + name[2:], path, **more)
            assert told[0] == 404
    twice = b'{"model":"%b","messages":[],"max_tokens":1,"max_tokens":2}'
    for key, statuses in {"betas": {404}, "alphas": {400, 404}}.items():
        names = (b"short", b"shirt")
        answers = [gateway.http.post(CHAT, content=twice % name, headers=bearer(key)) for name in names]
        assert {answer.status_code for answer in answers} == statuses


def test_a_key_uses_what_it_is_for(gateway: Gateway) -> None:
    """A model with its aliases; an alias without its model; everything, where nothing is said."""
    may = {
        "all": {"alpha", "beta", "short", "long"},
        "alphas": {"alpha", "short"},
        "betas": {"beta", "long"},
        "shorts": {"short"},
    }
    for key, names in may.items():
        listed = gateway.http.get("/v1/models", headers=bearer(key)).json()["data"]
        assert {one["id"] for one in listed} == names
        assert {other for one in listed for other in one["aliases"]} <= names
        assert set(gateway.http.get("/ready", headers=bearer(key)).json()["models"]) == names & {
            "alpha",
            "beta",
        }
        for name in may["all"]:
            expected = 200 if name in names else 404
            assert post(gateway, key, ask(name)).status_code == expected
            assert gateway.http.get(f"/v1/models/{name}", headers=bearer(key)).status_code == expected


def test_whoever_watches_learns_no_names(gateway: Gateway) -> None:
    """/ready says whether there is a ready model to anybody, and which ones to who may use them."""
    for headers in ({}, bearer("foreign"), bearer("late")):
        answer = gateway.http.get("/ready", headers=headers)
        assert (answer.status_code, answer.json()["models"]) == (200, [])


def test_a_stored_response_of_another_model_is_not_asked_for(
    gateway: Gateway, own_worker: FakeWorker
) -> None:
    """Only workers of models that the key may use are, under the model's name or an alias."""
    for key, asked in {"betas": False, "alphas": True, "shorts": True, "all": True}.items():
        own_worker.forget()
        gateway.http.get("/v1/responses/resp_1", headers=bearer(key))
        assert own_worker.seen.empty() is not asked


def test_the_keys_name_is_in_the_log_and_in_few_metrics(gateway: Gateway) -> None:
    """What it asked for and what was refused to it; a request without an accepted key is nobody's."""
    answers = [post(gateway, "all", ask("alpha")), post(gateway, "alphas", ask("beta"))]
    assert [gateway.logged(one)["key"] for one in answers] == ["all", "alphas"]
    assert gateway.logged(post(gateway, "late", ask("alpha")))["key"] is None
    told = '{"choices":[],"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}'
    post(gateway, "all", ask("alpha", "pieces", pieces=[told], json=True))
    count = gateway.metric
    assert count("gateway_key_requests_total", key="all", model="alpha") == 2
    assert count("gateway_key_requests_total", key="alphas", model="unknown") == 1
    assert count("gateway_key_requests_total") == 3
    for kind, tokens in {"prompt": 7, "completion": 5}.items():
        counted = count(f"gateway_key_{kind}_tokens_total", key="all", model="alpha")
        assert counted == count(f"gateway_{kind}_tokens_total", model="alpha") >= tokens


def test_without_a_key_file_there_are_no_keys_in_log_and_metrics(start_gateway: StartGateway) -> None:
    """Whatever key a client sends: it is nobody's."""
    gateway = start_gateway()
    assert gateway.logged(post(gateway, "all", ask("alpha")))["key"] is None
    assert "gateway_key_requests_total{" not in gateway.ops.get("/metrics").text


def test_a_change_counts_within_five_seconds_and_ends_no_request(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """However rare the rounds of discovery are. A stream that began before goes on to its end."""
    keys.write_text("keys:\n" + entry("all"))
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys, GATEWAY_INTERVAL_S=60)
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "sse", hold=1), headers=bearer("all")) as stream:
        held, began = own_worker.next(), time.monotonic()
        keys.write_text("keys:\n" + entry("new"))
        wait_until(lambda: post(gateway, "all", ask("alpha")).status_code == 401, "the key to be refused")
        assert post(gateway, "new", ask("alpha")).status_code == 200
        assert time.monotonic() - began < RELOAD_S
        held.go_on()
        assert b"[DONE]" in stream.read()
    assert gateway.logged(stream)["key"] == "all"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("keys:\n  a: {}\n", "keys.a.sha256: must be one or two SHA-256 hashes"),
        ("keys:\n" + entry("a", ", models: [nope]"), "'nope' is no model or alias; it must be one of alpha"),
        ("keys:\n" + entry("a") + entry("a"), "'a' stands twice"),
        ("keys:\n" + entry("a", ", expires: 2027-02-30"), "keys.a.expires: must be a date"),
        (
            "keys:\n" + entry("a", ", limits: {rpm: many}"),
            "keys.a.limits.rpm: Input should be a valid integer",
        ),
        ("keys:\n", "holds no key"),
        ("key:\n", "keys:1 is not `sha256:<64 hex digits> [name]`"),
    ],
)
def test_a_wrong_file_refuses_to_start(site: Site, keys: Path, text: str, told: str) -> None:
    """One line names file, key and what must be there; the exit code says that it is the operator's."""
    keys.write_text(text)
    run = run_to_its_end(site, GATEWAY_API_KEYS_FILE=keys)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert told in run.stderr


def test_a_running_gateway_takes_what_the_commands_write(gateway: Gateway, keys: Path) -> None:
    """A key that was made works, a replaced one works beside the new one, and a revoked one does not."""
    settings = {"GATEWAY_API_KEYS_FILE": str(keys), "GATEWAY_CARDS_DIR": str(keys.parent / "docker")}
    settings["GATEWAY_MODELS_FILE"] = str(keys.with_name("models.yaml"))

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "keys", *words],
            env=dict(os.environ) | settings, capture_output=True, text=True, timeout=40, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return gateway.http.post(CHAT, json=ask("short"), headers=headers).status_code

    first = command("add", "made", "--models=short")
    wait_until(lambda: status(first) == 200, "the new key")
    second = command("rotate", "made")
    wait_until(lambda: status(second) == 200, "the second key")
    assert status(first) == 200
    command("revoke", "made")
    wait_until(lambda: status(first) == status(second) == 401, "both to be refused")
    assert not gateway.events("keys_unreadable")
