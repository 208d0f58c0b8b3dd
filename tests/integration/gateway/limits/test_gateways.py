"""Several gateways, of several processes each, that share the limits of keys by a real Redis."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.api_keys import hash_key
from tests.fake_worker import WAIT_S, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, Site, ask, post, run_to_its_end, wait_until
from tests.integration.gateway.limits.conftest import StartRedis
from tests.integration.gateway.redis_server import RedisServer

CLIENTS = 100
PASSWORD = "planted-redis-password"
StartSharing = Callable[..., Gateway]


def entry(name: str, **limits: int) -> str:
    """An entry whose key is `sk-` and its name."""
    written = ", ".join(f"{limit}: {most}" for limit, most in limits.items())
    return f"  {name}: {{sha256: [{hash_key(b'sk-' + name.encode())}], limits: {{{written}}}}}\n"


@pytest.fixture
def start_sharing(start_gateway: StartGateway, redis: RedisServer, tmp_path: Path) -> StartSharing:
    """Starts a gateway whose keys `one` and `two` have these limits, `free` none, and that asks `redis`. Unless it is
    told otherwise, it waits for Redis for as long as a busy host needs."""

    def start(processes: int = 1, limits: dict[str, int] | None = None, **settings: object) -> Gateway:
        keys = tmp_path / "keys"
        of_all = limits or {"rpm": 1000}
        keys.write_text("keys:\n" + entry("one", **of_all) + entry("two", **of_all) + entry("free"))
        state = Path(tempfile.mkdtemp(dir=tmp_path))  # of each gateway its own
        own = {"GATEWAY_LIMITS_REDIS_URL": redis.url, "GATEWAY_LIMITS_REDIS_TIMEOUT_S": WAIT_S}
        gateway = start_gateway(
            GATEWAY_PROCESSES=processes,
            GATEWAY_API_KEYS_FILE=keys,
            **(own | {"GATEWAY_STATE_DIR": state} | settings),
        )
        wait_until(lambda: len(gateway.events("worker_state", to="ready")) == processes, "all ready")
        return gateway

    return start


def chat(gateway: Gateway, name: str = "one", **script: Any) -> httpx.Response:
    return gateway.http.post(
        CHAT, json=ask("alpha", **script), headers={"authorization": f"Bearer sk-{name}"}
    )


def hold(gateway: Gateway, name: str = "one") -> socket.socket:
    """A request that its worker holds, over a connection of its own."""
    body = json.dumps(ask("alpha", "json", hold=True)).encode()
    return gateway.connect(post(body, f"authorization: Bearer sk-{name}", "connection: close"))


async def crowd(gateways: list[Gateway], each: int) -> Counter[tuple[str, int]]:
    """CLIENTS at the same time, of both keys and all gateways in turn, each with `each` requests; what they got."""
    found: Counter[tuple[str, int]] = Counter()

    async def client(number: int) -> None:
        name, gateway = ("one", "two")[number % 2], gateways[number // 2 % len(gateways)]
        async with httpx.AsyncClient(base_url=gateway.url, timeout=WAIT_S, trust_env=False) as http:
            for _ in range(each):
                answer = await http.post(
                    CHAT, json=ask("alpha"), headers={"authorization": f"Bearer sk-{name}"}
                )
                found[name, answer.status_code] += 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return found


def test_two_gateways_of_two_processes_grant_the_limit(
    start_sharing: StartSharing, own_worker: FakeWorker
) -> None:
    """100 clients: each key gets its limit to the request, and what is refused reaches no worker."""
    gateways = [start_sharing(2, {"rpm": 137}) for _ in range(2)]
    found = asyncio.run(crowd(gateways, each=6))
    assert found == {
        (name, status): count for name in ("one", "two") for status, count in ((200, 137), (429, 163))
    }
    assert own_worker.seen.qsize() == 2 * 137
    for gateway in gateways:
        assert gateway.metric("gateway_limits_store_up") == 1
        refused = chat(gateway)
        assert refused.json()["error"]["message"].startswith(
            "API key 'one' has used 137 of its 137 requests a minute"
        )
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        gateway.terminate()
        assert gateway.end() == (0, "")


def test_tokens_are_settled_between_gateways(start_sharing: StartSharing, own_worker: FakeWorker) -> None:
    """What a worker says that a request has used counts at the other gateway."""
    usage = '{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":100}}'
    one, other = (start_sharing(1, {"tpm_out": 1000}) for _ in range(2))
    before = int(chat(other).headers["x-ratelimit-remaining-tokens"])
    for _ in range(3):
        assert chat(one, do="pieces", json=True, pieces=[usage]).status_code == 200
    wait_until(lambda: int(chat(other).headers["x-ratelimit-remaining-tokens"]) < before - 300, "300 used")


def test_a_killed_gateway_gives_its_places_back(start_sharing: StartSharing, own_worker: FakeWorker) -> None:
    """It cannot settle: what it held is forgotten when it has not renewed itself for a while."""
    killed, other = start_sharing(2, {"concurrency": 2}), start_sharing(1, {"concurrency": 2})
    held = [hold(killed) for _ in range(2)]
    for _ in held:
        own_worker.next()
    assert chat(other).json()["error"]["code"] == "rate_limited"
    killed.process.send_signal(signal.SIGKILL)
    assert killed.end()[0] == -signal.SIGKILL
    for connection in held:
        connection.close()
    wait_until(lambda: chat(other).status_code == 200, "places free")
    assert chat(other, "two").status_code == 200


@pytest.mark.parametrize("lose", ["kill", "pause"])
def test_redis_goes_in_the_middle(
    start_sharing: StartSharing, own_worker: FakeWorker, redis: RedisServer, lose: str
) -> None:
    """What runs goes on, and keys without limits notice nothing; a key with limits gets a 503 until Redis is back. The
    log tells it once, though many asked."""
    gateway = start_sharing(GATEWAY_LIMITS_REDIS_TIMEOUT_S=0.25)
    running = hold(gateway)
    seen = own_worker.next()
    getattr(redis, lose)()
    refused = wait_until(lambda: one if (one := chat(gateway)).status_code != 200 else None, "a refusal")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert "limits of API key 'one' cannot be checked" in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "2"
    assert [chat(gateway).status_code for _ in range(20)] == [503] * 20
    assert chat(gateway, "free").status_code == 200
    assert gateway.metric("gateway_limits_store_up") == 0
    lost = gateway.event("limits_store_lost")
    assert lost["message"].endswith(". Until it is back, keys with limits get a 503")
    seen.go_on()
    assert running.recv(65536).startswith(b"HTTP/1.1 200")
    running.close()
    redis.start() if lose == "kill" else redis.go_on()
    wait_until(lambda: chat(gateway).status_code == 200, "Redis is back")
    assert gateway.metric("gateway_limits_store_up") == 1
    assert len(gateway.events("limits_store_lost")) <= 2  # it did not answer, then could not be reached
    assert len(gateway.events("limits_store_reached")) == 2


def test_each_gateway_goes_on_alone(
    start_sharing: StartSharing, own_worker: FakeWorker, redis: RedisServer
) -> None:
    """With `open`, each holds keys to their limits while Redis is gone, and nobody waits for it."""
    settings = {"GATEWAY_LIMITS_REDIS_TIMEOUT_S": 0.25, "GATEWAY_LIMITS_WITHOUT_REDIS": "open"}
    gateways = [start_sharing(2, {"rpm": 10}, **settings) for _ in range(2)]
    assert [chat(gateways[0]).status_code for _ in range(4)] == [200] * 4
    redis.kill()
    assert Counter(chat(gateways[0]).status_code for _ in range(10)) == {200: 6, 429: 4}
    assert Counter(chat(gateways[1]).status_code for _ in range(12)) == {200: 10, 429: 2}
    lost = gateways[0].event("limits_store_lost")
    assert lost["message"].endswith(". Until it is back, this gateway alone holds keys to their limits")


def test_a_gateway_starts_without_redis(start_sharing: StartSharing, redis: RedisServer) -> None:
    """It says so, and asks again until it is there."""
    redis.kill()
    gateway = start_sharing()
    assert chat(gateway).status_code == 503
    assert (
        f"redis://127.0.0.1:{redis.port} cannot be reached" in gateway.event("limits_store_lost")["message"]
    )
    redis.start()
    wait_until(lambda: chat(gateway).status_code == 200, "Redis is there")


def test_the_password_is_nowhere(
    start_sharing: StartSharing, start_redis: StartRedis, tmp_path: Path
) -> None:
    """Neither in the log nor in metrics and errors, be it right or wrong; the user's name is not either."""
    server, file = start_redis(requirepass=PASSWORD), tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    own = {"GATEWAY_LIMITS_REDIS_URL": server.url, "GATEWAY_LIMITS_REDIS_PASSWORD_FILE": file}
    gateway = start_sharing(**own)
    assert chat(gateway).status_code == 200
    file.write_text(PASSWORD + "-of-another\n")
    other = start_sharing(**own)
    answer = chat(other)
    assert answer.status_code == 503
    assert "does not take the password" in other.event("limits_store_lost")["message"]
    told = [*gateway.raw_log, *other.raw_log, answer.content, other.ops.get("/metrics").content]
    assert PASSWORD.encode() not in b"".join(told)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("localhost:6379", "is no address of a Redis: write redis://host:6379/0"),
        ("http://localhost:6379", "is no address of a Redis"),
        ("redis://host:port", "is no address: write redis://"),
        ("redis:///0", "is no address of a Redis"),
        ("redis://:secret-word@host", "holds a password, which `docker inspect` would show"),
        ("redis://host?password=secret-word", "holds a password"),
        ("redis://user@host", "names a user: write its password into a file"),
        ("redis://host/zero", "the database is a number"),
        ("redis://host?socket_timeout=100", "has an option that is not one of db"),
        ("rediss://host?ssl_cert_reqs=none", "has an option that is not one of db, ssl_ca_certs"),
        ("rediss://host?ssl_ca_certs=/nowhere", "=/nowhere cannot be read: No such file or directory"),
        ("unix://run/redis.sock", "has no absolute path: write unix:///path/of/socket"),
    ],
)
def test_a_wrong_address_ends_the_start(site: Site, tmp_path: Path, url: str, problem: str) -> None:
    """In one line that says what to write, and repeats no secret."""
    keys = tmp_path / "keys"
    keys.write_text("keys:\n" + entry("one", rpm=1))
    ended = run_to_its_end(site, GATEWAY_LIMITS_REDIS_URL=url, GATEWAY_API_KEYS_FILE=keys)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "gateway: " in ended.stderr
    assert problem in ended.stderr
    assert "secret-word" not in ended.stderr


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"GATEWAY_LIMITS_REDIS_PASSWORD_FILE": "/x"}, "is set without GATEWAY_LIMITS_REDIS_URL"),
        ({"GATEWAY_LIMITS_REDIS_URL": "redis://host"}, "is set without GATEWAY_API_KEYS_FILE"),
        ({"GATEWAY_LIMITS_WITHOUT_REDIS": "maybe"}, "GATEWAY_LIMITS_WITHOUT_REDIS='maybe'"),
    ],
)
def test_settings_that_do_not_belong_together(site: Site, settings: dict[str, str], problem: str) -> None:
    ended = run_to_its_end(site, **settings)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert problem in ended.stderr


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "No such file"), ("", "one line"), ("a\nb", "one line")]
)
def test_a_wrong_password_file_ends_the_start(
    site: Site, tmp_path: Path, content: str | None, problem: str
) -> None:
    keys, file = tmp_path / "keys", tmp_path / "password"
    keys.write_text("keys:\n" + entry("one", rpm=1))
    if content is not None:
        file.write_text(content)
    ended = run_to_its_end(
        site, GATEWAY_LIMITS_REDIS_URL="redis://host", GATEWAY_API_KEYS_FILE=keys,
        GATEWAY_LIMITS_REDIS_PASSWORD_FILE=file,
    )  # fmt: skip
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert f"GATEWAY_LIMITS_REDIS_PASSWORD_FILE={file}" in ended.stderr
    assert problem in ended.stderr
