"""Handshakes that do not end are bounded in number: the oldest makes room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.settings import Settings
from gateway.server import handshake as module
from gateway.server.handshake import MAX_HANDSHAKES, Handshake, Handshakes


class Wire:
    """A transport that notes that it was aborted."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True

    def set_write_buffer_limits(self, high: int) -> None: ...


class Listener:
    """What a handshake needs of the listener."""

    closing = False
    settings = Settings()

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.left: list[Handshake] = []

    def enter(self, handshake: Handshake) -> None: ...

    def forget(self, handshake: Handshake) -> None:
        self.left.append(handshake)


def begun(handshakes: Handshakes) -> tuple[Handshake, Any]:
    handshake, wire = handshakes.begin(), Wire()
    handshake.connection_made(wire)  # type: ignore[arg-type]
    return handshake, wire


async def test_one_too_many_aborts_the_oldest() -> None:
    """And only that; one that has ended counts no more."""
    handshakes = Handshakes(Listener(), None, print)  # type: ignore[arg-type]
    first, second, *others = [begun(handshakes) for _ in range(MAX_HANDSHAKES)]
    second[0].connection_lost(None)
    begun(handshakes)
    assert not first[1].aborted
    begun(handshakes)
    assert first[1].aborted
    assert not any(wire.aborted for _, wire in others)


async def test_an_ended_handshake_leaves_the_listener() -> None:
    """So that the end of the gateway does not wait for it."""
    listener = Listener()
    handshake, _ = begun(Handshakes(listener, None, print))  # type: ignore[arg-type]
    handshake.connection_lost(None)
    assert listener.left == [handshake]
    assert not handshake.busy


def test_the_bound_is_above_the_backlog() -> None:
    """Else a crowd that comes at once would abort its own."""
    serve = (Path(__file__).resolve().parents[4] / "gateway/src/gateway/serve.py").read_text()
    backlog = next(line for line in serve.splitlines() if line.startswith("BACKLOG"))
    assert int(backlog.split()[2]) < MAX_HANDSHAKES


class Secured(Wire):
    """The transport that TLS gives."""

    def is_closing(self) -> bool:
        return False

    def set_protocol(self, protocol: object) -> None: ...


class Recorder:
    """A client's connection that notes what it is given. secured, data: of the one made last."""

    made: list[bytes]

    def __init__(self, listener: object, wire: object) -> None: ...

    def connection_made(self, transport: object) -> None: ...

    def data_received(self, data: bytes) -> None:
        self.made.append(data)


class ReadsOn:
    """A loop that reads on in the turn in which TLS is agreed."""

    @staticmethod
    def time() -> float:
        return 0.0

    @staticmethod
    async def start_tls(transport: object, protocol: Handshake, *_: object, **__: object) -> Secured:
        for piece in (b"GET / HT", b"TP/1.1\r\n\r\n"):
            protocol.data_received(piece)
        return Secured()


async def test_what_comes_before_the_task_has_its_turn_goes_to_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TLS is agreed, and the loop reads on in the same turn: it is a request, and no client without TLS."""
    Recorder.made = []
    monkeypatch.setattr(module, "ClientConnection", Recorder)
    listener: Any = Listener()
    listener.loop = ReadsOn()
    certificate: Any = SimpleNamespace(context=None)
    handshake, wire = begun(Handshakes(listener, certificate, print))
    handshake._agreeing = asyncio.create_task(handshake._agree())
    await handshake._agreeing
    assert Recorder.made == [b"GET / HTTP/1.1\r\n\r\n"]
    assert not wire.aborted
