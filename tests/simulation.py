"""The gateway without a network: a loop whose time stands still until a test moves it, and transports whose peer is the
test. Every turn of the loop and every callback is watched: none may take long, and none may go on for ever.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

from gateway.app import Gateway
from gateway.config.settings import Settings
from gateway.fleet.workers import Worker
from gateway.telemetry.logs import EventLog

MOST_CPU_S = 0.05  # of one callback or turn of the loop
ENDLESS_S = 3.0  # of CPU, after which it is ended: it would never be
MOST_TURNS = 20_000  # of the loop until nothing is left to do
SLUG = "alpha"


class Endless(BaseException):
    """A callback that does not come to an end. No `except Exception` on the way takes it for its own."""


class Slow(AssertionError):
    """A callback that holds the loop for too long."""


class Watch:
    """Measures what runs in it. worst: seconds of CPU of one run."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._slow: list[str] = []
        self._running = False
        signal.signal(signal.SIGVTALRM, self._end)

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        if self._running:  # within another, which counts it
            yield
            return
        self._running = True
        gc.disable()
        signal.setitimer(signal.ITIMER_VIRTUAL, ENDLESS_S)
        begun = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - begun
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            gc.enable()
            self._running = False
        self.worst = max(self.worst, spent)
        if spent > MOST_CPU_S:
            self._slow.append(f"{what} took {spent * 1000:.0f} ms")

    def judge(self) -> None:
        """Raises Slow if anything was, since it was last asked."""
        slow, self._slow = self._slow, []
        if slow:
            raise Slow(", ".join(slow))

    def _end(self, _number: int, frame: FrameType | None) -> None:
        raise Endless(f"still in {frame and frame.f_code.co_qualname} after {ENDLESS_S} s of CPU")


class Loop(asyncio.BaseEventLoop):
    """A loop without files. `lines`: the connections that the gateway has opened; `refuses`: it gets no more."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch
        self.lines: list[Line] = []
        self.refuses = False
        self._now = 1000.0
        self._selector = self
        self.sockets = socket.socketpair()  # whose queues are empty: the kernel holds nothing back

    def time(self) -> float:
        return self._now

    def settle(self) -> None:
        """Runs what is due, and what that brings with it."""
        for _ in range(MOST_TURNS):
            if not self.turn():
                return
        raise AssertionError(f"still something to do after {MOST_TURNS} turns of the loop")

    def turn(self, after: float = 0.0) -> bool:
        """Time goes on by so many seconds, and what is due then is run. Whether that has brought more to do."""
        self._now += after
        with self.watch("a turn of the loop"):
            self.call_soon(self.stop)
            self.run_forever()
        return bool(self._ready)  # type: ignore[attr-defined]

    def pass_time(self, seconds: float) -> None:
        self._now += seconds
        self.settle()

    async def create_connection(self, factory: Callable[[], Any], *_: object, **__: object) -> Any:  # type: ignore[override]
        if self.refuses:
            raise ConnectionRefusedError(111, "refused")
        protocol = factory()
        self.lines.append(Line(self, protocol))
        return self.lines[-1], protocol

    def run_in_executor(self, _executor: object, work: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """What would run in a thread runs in a turn of its own, and is not watched: it does not hold the loop."""
        future = self.create_future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001  # it is told to who waits for it
            future.set_exception(error)
        return future

    def close(self) -> None:
        super().close()
        for one in self.sockets:
            one.close()

    def select(self, _timeout: float | None) -> list[object]:
        """As a selector: there are no files."""
        return []

    def _process_events(self, _events: object) -> None: ...

    def _write_to_self(self) -> None: ...


class Line:
    """A transport as asyncio's are; the other side is the test's: `send`, `leave`, `reset`, `stop_reading`, `read_on`.

    out: what the peer has taken; has_left: the peer has ended its side; ended: the protocol has; closed: the connection
    is no more; was_reset: the protocol has ended it with a reset.
    """

    def __init__(self, loop: Loop, protocol: Any) -> None:
        self._loop = loop
        self._protocol = protocol
        self._unsent = b""
        self._unread: list[bytes] = []
        self._high = 64 * 1024
        self._writes = self._is_reading = self._peer_reads = True
        self._is_gone = False
        self._closing = False
        self.out = b""
        self.ended = self.closed = self.was_reset = self.has_left = False
        self._tell(protocol.connection_made, self)

    # the peer's side

    def send(self, data: bytes) -> None:
        if data and not self._closing and not self.has_left:
            self._unread.append(data)
            self._deliver()

    def leave(self) -> None:
        """An orderly end."""
        self.has_left = True
        self._deliver()

    def reset(self) -> None:
        self.has_left = self._is_gone = True
        self._unread.clear()
        if self._is_reading:
            self._lose(ConnectionResetError(104, "reset"))

    def stop_reading(self) -> None:
        self._peer_reads = False

    def read_on(self) -> None:
        self._peer_reads = True
        self._drain()

    @property
    def is_over(self) -> bool:
        """Whether the peer is told that nothing more comes, in an orderly way."""
        return (self.closed or self.ended) and not self.was_reset and not self.has_left

    @property
    def takes_more(self) -> bool:
        """Whether the protocol may write on."""
        return self._writes

    @property
    def stands_still(self) -> bool:
        """Whether the protocol reads no more of what the peer sends, though the peer takes all that it gets."""
        return not self._is_reading and not self._closing and self._writes

    # the protocol's side

    def write(self, data: bytes) -> None:
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._is_gone:
            self._lose(BrokenPipeError(32, "broken pipe"))
        if self.closed or self._closing:
            return
        self._unsent += data
        self._drain()
        if self._writes and len(self._unsent) > self._high:
            self._writes = False
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._drain()

    def abort(self) -> None:
        self._lose(None)

    def pause_reading(self) -> None:
        assert not self._closing
        self._is_reading = False

    def resume_reading(self) -> None:
        assert not self._closing
        self._is_reading = True
        self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or self._high

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self if name == "socket" else default

    # as a socket

    def getsockopt(self, *_: object) -> bytes:
        """TCP_INFO: established, or closed by the peer."""
        return bytes([8 if self.has_left else 1])

    def setsockopt(self, _level: int, option: int, value: object) -> None:
        self.was_reset = self.was_reset or option == socket.SO_LINGER

    def fileno(self) -> int:
        return self._loop.sockets[0].fileno()

    # what happens

    def _deliver(self) -> None:
        while self._unread and self._is_reading and not self._closing:
            self._tell(self._protocol.data_received, self._unread.pop(0))
        if self.has_left and not self._unread and self._is_reading and not self._closing:
            if self._is_gone:
                self._lose(ConnectionResetError(104, "reset"))
            elif not self._tell(self._protocol.eof_received):
                self.close()

    def _drain(self) -> None:
        if self._peer_reads and not self.closed:
            self.out, self._unsent = self.out + self._unsent, b""
            if not self._writes:
                self._writes = True
                self._loop.call_soon(self._resume_writing)
        if self._closing and not self._unsent:
            self._lose(None)

    def _resume_writing(self) -> None:
        if not self.closed:
            self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        """The connection is over; its protocol hears of it in the next turn of the loop."""
        self._closing = True
        if not self.closed:
            self.closed = True
            self._unsent = b""
            self._loop.call_soon(self._protocol.connection_lost, error)

    def _tell(self, callback: Callable[..., object], *args: object) -> object:
        with self._loop.watch(callback.__name__):
            return callback(*args)


class Log(EventLog):
    """Keeps the gateway's own faults, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Exception] = []

    def request(self, loop: asyncio.AbstractEventLoop, **facts: object) -> None: ...

    def info(self, event: str, **facts: object) -> None: ...

    def warning(self, event: str, **facts: object) -> None: ...

    def error(self, event: str, **facts: object) -> None: ...

    def fault(self, error: Exception, **facts: object) -> None:
        self.faults.append(error)


class Stage:
    """A gateway that serves the model `alpha` by one worker, which is the test's. models: what its models file says;
    keys: what its key file says, None: it needs no key."""

    def __init__(self, models: str = "{}", keys: str | None = None) -> None:
        self.watch = Watch()
        self.loop = Loop(self.watch)
        self.log = Log()
        with tempfile.TemporaryDirectory() as folder:
            self.gateway = self.loop.run_until_complete(self._build(Path(folder), models, keys))
        self.listener = self.gateway.listener()
        fleet = self.gateway.fleet
        fleet.refresh(SLUG, [("127.0.0.1", 9)])
        self.worker: Worker = fleet.workers()[0]
        fleet.probe_passed(self.worker, None)

    async def _build(self, folder: Path, models: str, keys: str | None) -> Gateway:
        slug = folder / SLUG
        slug.mkdir()
        (slug / "card.yaml").write_text(f"slug: {SLUG}\n")
        (slug / "model.env").write_text(f"WEIGHTS_REPO=o/{SLUG}\nSERVED_MODEL_NAMES={SLUG}\n")
        (folder / "models.yaml").write_text(models)
        if keys is not None:
            (folder / "keys").write_text(keys)
        settings = Settings(
            cards_dir=folder,
            api_keys_file=None if keys is None else folder / "keys",
            models_file=folder / "models.yaml",
            dns=False,
            eject_after=1 << 30,
            allowed_hosts="*",
            field_policy="permissive",
        )
        return Gateway(settings, self.log)

    def look(self, seconds: float) -> None:
        """Time goes on by so much, and every connection is looked at."""
        self.loop.pass_time(seconds)
        for connection in self.listener.connections:
            with self.watch("look"):
                connection.check_deadlines(self.loop.time())
        self.loop.settle()

    def connect(self, connection: object) -> Line:
        """A client's line to `connection`."""
        return Line(self.loop, cast(Any, connection))

    def close(self) -> None:
        self.loop.close()


class Stages:
    """Stages for one play after another: none is used again after a play that broke it. worst: seconds of CPU of the
    slowest step on any of them."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._all: list[Stage] = []
        self._whole: list[Stage] = []

    def take(self) -> Stage:
        if not self._whole:
            self._all.append(Stage())
            return self._all[-1]
        return self._whole.pop()

    def give_back(self, stage: Stage) -> None:
        self._whole.append(stage)
        self.worst = max(self.worst, stage.watch.worst)

    def close(self) -> None:
        for stage in self._all:
            stage.close()


def surely(play: Callable[[], None]) -> None:
    """Plays; what was slow, on a machine that may be busy, is played twice more, and must be slow each time."""
    for _ in range(2):
        try:
            return play()
        except Slow:
            continue
    return play()
