"""A real Redis for tests: Debian's redis-server on a free loopback port, with nothing written to disk."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.fake_worker import WAIT_S
from tests.integration.gateway.harness import wait_until

PROGRAM = shutil.which("redis-server")
MISSING = "there is no redis-server: apt-get install redis-server, or make test INSTALL=1"


class RedisServer:
    """One Redis. `options`: of its configuration, such as requirepass. It keeps its port over `stop` and `start`."""

    def __init__(self, **options: str) -> None:
        self.port = free_port()
        self._options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
        } | options
        self._process: subprocess.Popen[bytes] | None = None
        self.password = options.get("requirepass")
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        """A client of its own, for looking into it."""
        return redis.Redis(
            port=self.port, password=self.password, decode_responses=True, retry=Retry(NoBackoff(), 0)
        )

    def ask(self, *words: str | int) -> Any:
        with self.client as client:
            return client.execute_command(*words)

    def start(self) -> None:
        """Starts it, empty, and waits until it answers."""
        assert PROGRAM
        words = [word for name, value in self._options.items() for word in (f"--{name}", *value.split(" "))]
        self._process = subprocess.Popen([PROGRAM, *words], stdout=subprocess.DEVNULL)
        wait_until(self._answers, "Redis answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_S)
            self._process = None

    def pause(self) -> None:
        """Stops it as a swapped-out or overloaded one is: connections stay, and the kernel makes new ones."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server has ended"
        try:
            return bool(self.ask("PING"))
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
