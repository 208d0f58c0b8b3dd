"""Real Redis servers that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integration.gateway.redis_server import MISSING, PROGRAM, RedisServer

StartRedis = Callable[..., RedisServer]


@pytest.fixture
def start_redis() -> Iterator[StartRedis]:
    """Starts a Redis with options of its configuration."""
    started: list[RedisServer] = []

    if PROGRAM is None:
        pytest.skip(MISSING)

    def start(**options: str) -> RedisServer:
        started.append(RedisServer(**options))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def redis(start_redis: StartRedis) -> RedisServer:
    return start_redis()
