"""A worker that drains: new requests are refused, its figures are told, all else passes untouched."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from launcher import draining
from launcher.draining import Draining, Receive, Scope, Send

Message = MutableMapping[str, Any]


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draining:
    """In front of an application that answers 200 to everything."""
    monkeypatch.setenv("LAUNCHER_STATE_DIR", str(tmp_path))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return Draining(app)


async def ask(door: Draining, path: str, kind: str = "http") -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await door({"type": kind, "path": path}, receive, send)
    return sent


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health", "/metrics"])
async def test_everything_passes_before(door: Draining, path: str) -> None:
    assert [message["status"] for message in await ask(door, path)] == [200]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health"])
async def test_requests_are_refused_from_then_on(door: Draining, tmp_path: Path, path: str) -> None:
    """With OpenAI's error object and a time to come again."""
    draining.begin(tmp_path)
    start, body = await ask(door, path)
    assert start["status"] == 503
    headers = dict(start["headers"])
    assert headers[b"retry-after"] == b"1"
    assert int(headers[b"content-length"]) == len(body["body"])
    assert json.loads(body["body"])["error"]["code"] == "no_worker_available"


async def test_a_body_is_read_before_the_refusal(door: Draining, tmp_path: Path) -> None:
    """A connection closed with bytes unread is reset, and the refusal may be lost with it."""
    draining.begin(tmp_path)
    parts: list[Message] = [{"body": b"x" * 65536, "more_body": True}] * 3 + [
        {"body": b"", "more_body": False}
    ]
    unread_when_sent: list[int] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        unread_when_sent.append(len(parts))

    await door({"type": "http", "path": "/v1/chat/completions"}, receive, send)
    assert unread_when_sent == [0, 0]


async def test_figures_and_the_server_s_own_life_go_on(door: Draining, tmp_path: Path) -> None:
    draining.begin(tmp_path)
    assert [message["status"] for message in await ask(door, "/metrics")] == [200]
    assert [message["status"] for message in await ask(door, "", kind="lifespan")] == [200]


async def test_a_later_start_takes_requests_again(door: Draining, tmp_path: Path) -> None:
    draining.begin(tmp_path)
    draining.forget(tmp_path)
    draining.forget(tmp_path)
    assert [message["status"] for message in await ask(door, "/health")] == [200]
