"""Whom a worker lets in: its launcher alone before it is ready, nobody once it is to stop, everybody between."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from launcher.engine import admission
from launcher.engine.admission import Admission, Receive, Scope, Send

Message = MutableMapping[str, Any]


@pytest.fixture
def middleware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Admission:
    """In front of an application that answers 200 to everything."""
    monkeypatch.setenv("LAUNCHER_STATE_DIR", str(tmp_path))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return Admission(app)


async def ask(
    middleware: Admission, path: str, kind: str = "http", headers: tuple[tuple[bytes, bytes], ...] = ()
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await middleware({"type": kind, "path": path, "headers": headers}, receive, send)
    return sent


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health", "/metrics"])
async def test_everything_passes_before(middleware: Admission, path: str) -> None:
    assert [message["status"] for message in await ask(middleware, path)] == [200]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health"])
async def test_requests_are_refused_from_then_on(middleware: Admission, tmp_path: Path, path: str) -> None:
    """With OpenAI's error object and a time to come again."""
    admission.close(tmp_path)
    start, body = await ask(middleware, path)
    assert start["status"] == 503
    headers = dict(start["headers"])
    assert headers[b"retry-after"] == b"1"
    assert int(headers[b"content-length"]) == len(body["body"])
    assert json.loads(body["body"])["error"]["code"] == "no_worker_available"


async def test_a_body_is_read_before_the_refusal(middleware: Admission, tmp_path: Path) -> None:
    """A connection closed with bytes unread is reset, and the refusal may be lost with it."""
    admission.close(tmp_path)
    parts: list[Message] = [{"body": b"x" * 65536, "more_body": True}] * 3 + [
        {"body": b"", "more_body": False}
    ]
    unread_when_sent: list[int] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        unread_when_sent.append(len(parts))

    await middleware({"type": "http", "path": "/v1/chat/completions", "headers": ()}, receive, send)
    assert unread_when_sent == [0, 0]


async def test_figures_and_the_server_s_own_life_go_on(middleware: Admission, tmp_path: Path) -> None:
    admission.close(tmp_path)
    assert [message["status"] for message in await ask(middleware, "/metrics")] == [200]
    assert [message["status"] for message in await ask(middleware, "", kind="lifespan")] == [200]


async def test_a_later_start_takes_requests_again(middleware: Admission, tmp_path: Path) -> None:
    admission.close(tmp_path)
    admission.open_to_all(tmp_path)
    admission.open_to_all(tmp_path)
    assert [message["status"] for message in await ask(middleware, "/health")] == [200]


async def test_the_launcher_alone_passes_before_a_worker_is_ready(
    middleware: Admission, tmp_path: Path
) -> None:
    """To others it is as if the model were loading."""
    key = admission.close_but_for_key(tmp_path)
    for path in ("/health", "/v1/models", "/v1/chat/completions"):
        start, body = await ask(middleware, path)
        assert start["status"] == 503
        assert json.loads(body["body"])["error"]["code"] == "model_loading"
        assert (await ask(middleware, path, headers=((b"x-octet-key", b"0" * 32),)))[0]["status"] == 503
        assert [
            message["status"] for message in await ask(middleware, path, headers=((b"x-octet-key", key),))
        ] == [200]
    admission.open_to_all(tmp_path)
    assert [message["status"] for message in await ask(middleware, "/health")] == [200]


async def test_no_key_passes_once_it_is_to_stop(middleware: Admission, tmp_path: Path) -> None:
    """Neither that of its start, nor what the file holds."""
    key = admission.close_but_for_key(tmp_path)
    admission.close(tmp_path)
    for word in (key, b"nobody", b""):
        assert (await ask(middleware, "/health", headers=((b"x-octet-key", word),)))[0]["status"] == 503


def test_every_start_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert len({admission.close_but_for_key(tmp_path) for _ in range(10)}) == 10


async def test_what_cannot_be_read_lets_nobody_in(middleware: Admission, tmp_path: Path) -> None:
    admission.closed_file(tmp_path).mkdir()
    assert (await ask(middleware, "/health", headers=((b"x-octet-key", b""),)))[0]["status"] == 503
