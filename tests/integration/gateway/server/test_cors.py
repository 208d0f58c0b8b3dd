"""CORS: a page of a listed origin uses the gateway from a browser; for any other, and by default, nothing is said."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.config.api_keys import hash_key
from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask

APP, EVIL = "https://app.example", "https://evil.example"
PATHS = (CHAT, "/v1/messages", "/v1/models", "/v1/models/alpha", "/v1/nothing")


def preflight(gateway: Gateway, path: str, origin: str) -> httpx.Response:
    """What a browser asks before a page's request with a key and JSON."""
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }
    return gateway.http.options(path, headers=asked)


def allowed(answer: httpx.Response) -> list[str]:
    return answer.headers.get_list("access-control-allow-origin")


@pytest.fixture
def gateway(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    """A gateway with a key, for pages of APP and of a development server."""
    (tmp_path / "keys").write_text(f"sha256:{hash_key(b'mine')}\n")
    return start_gateway(
        GATEWAY_CORS_ORIGINS=f"{APP} http://localhost:3000", GATEWAY_API_KEYS_FILE=tmp_path / "keys"
    )


def test_a_page_of_a_listed_origin(gateway: Gateway, own_worker: FakeWorker) -> None:
    """Its preflight is answered without a key, on every path; its requests too, errors and streams among them."""
    own_worker.forget()
    for path in PATHS:
        answer = preflight(gateway, path, APP)
        assert (answer.status_code, answer.content, allowed(answer)) == (204, b"", [APP])
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert own_worker.seen.empty()
    page, key = {"origin": APP}, {"authorization": "Bearer mine"}
    post = gateway.http.post
    answers = {
        "whole": post(CHAT, json=ask("alpha"), headers=page | key),
        "stream": post(CHAT, json=ask("alpha", "sse"), headers=page | key),
        "a worker's error": post(CHAT, json=ask("alpha", "error", status=400), headers=page | key),
        "no model": post(CHAT, json=ask("nobody"), headers=page | key),
        "no key": post(CHAT, json=ask("alpha"), headers=page),
        "no key for the models": gateway.http.get("/v1/models", headers=page),
        "models": gateway.http.get("/v1/models", headers=page | key),
        "no route": gateway.http.get("/v1/nothing", headers=page | key),
        "wrong method": gateway.http.get(CHAT, headers=page | key),
    }
    assert answers["whole"].content == COMPLETION
    for name, answer in answers.items():
        assert allowed(answer) == [APP], name
        assert "origin" in answer.headers["vary"], name
        assert "x-request-id" in answer.headers["access-control-expose-headers"], name


def test_a_page_of_another_origin(gateway: Gateway) -> None:
    """Its preflight is refused like any OPTIONS, and no answer is for it to read."""
    refused = preflight(gateway, CHAT, EVIL)
    assert (refused.status_code, refused.headers["allow"], allowed(refused)) == (405, "POST", [])
    answer = gateway.http.post(
        CHAT, json=ask("alpha"), headers={"origin": EVIL, "authorization": "Bearer mine"}
    )
    assert (answer.content, allowed(answer), answer.headers["vary"]) == (COMPLETION, [], "origin")


def test_by_default_no_page_may_read(start_gateway: StartGateway) -> None:
    """Nothing of an answer changes with an origin."""
    gateway = start_gateway()
    assert preflight(gateway, CHAT, APP).status_code == 405
    answer = gateway.http.post(CHAT, json=ask("alpha"), headers={"origin": APP})
    assert (answer.content, allowed(answer), "vary" in answer.headers) == (COMPLETION, [], False)
