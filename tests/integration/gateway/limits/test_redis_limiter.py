"""Limits over several gateways: each has its own table, and they share a real Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.api.errors import GatewayError, Overloaded, QuotaExceeded, RateLimited
from gateway.config.api_keys import ApiKey, Limits
from gateway.limits import redis_limiter
from gateway.limits.estimates import Cost, Used
from gateway.limits.limiter import Limiter, Reservation
from gateway.limits.redis_address import address_of
from gateway.limits.redis_limiter import RedisLimiter
from gateway.limits.table import Table
from tests.fake_worker import WAIT_S
from tests.integration.gateway.limits.conftest import StartRedis
from tests.integration.gateway.redis_server import RedisServer

HUGE = 10**9


class Peer:
    """One gateway process. `told`: what its operator was told of Redis, None: it is there."""

    def __init__(
        self, url: str, *, is_open: bool = False, password: Path | None = None, name: str = "",
        answer_s: float = WAIT_S,
    ) -> None:  # fmt: skip
        self.told: list[str | None] = []
        self.limiter = Limiter(Table(), list)
        self.redis = RedisLimiter(
            self.limiter, address_of(url, password), name or str(id(self)), self.told.append,
            answer_s=answer_s, is_open=is_open,
        )  # fmt: skip

    async def ask(self, key: ApiKey, cost: Cost | None = None) -> Reservation:
        """The reservation, or raises what refuses it."""
        local = self.limiter.reserve(key, cost or Cost())
        outcome: asyncio.Future[Reservation | GatewayError] = asyncio.get_running_loop().create_future()
        found = self.redis.confirm(key, local, outcome.set_result) or await outcome
        if isinstance(found, GatewayError):
            raise found
        return found

    async def grants(self, key: ApiKey, cost: Cost | None = None) -> bool:
        try:
            await self.ask(key, cost)
        except RateLimited:
            return False
        return True

    async def settled(self) -> None:
        """Redis knows what was settled until now: it answers in the order in which it is asked."""
        await self.ask(ApiKey("settled", limits=Limits(rpm=HUGE)))

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Peer]:
        await self.redis.store.connect()
        running = asyncio.create_task(self.redis.store.run())
        yield self
        self.redis.store.end()
        await running

    async def until(self, look: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not look():  # noqa: ASYNC110  # what is looked for has no event
                await asyncio.sleep(0.01)


def key_of(**limits: int) -> ApiKey:
    return ApiKey("one", limits=Limits(**limits))


async def test_what_all_grant_is_the_limit(redis: RedisServer) -> None:
    """Four processes of as many gateways, each asked 400 times at once for a key of 500 requests a minute."""
    key, peers = key_of(rpm=500), [Peer(redis.url) for _ in range(4)]
    async with peers[0](), peers[1](), peers[2](), peers[3]():
        granted = await asyncio.gather(*(peer.grants(key) for peer in peers for _ in range(400)))
        assert sum(granted) == 500
        with pytest.raises(RateLimited, match="'one' has used 500 of its 500 requests a minute") as refused:
            await peers[0].ask(key)
        assert 55 <= (refused.value.retry_after_s or 0) <= 61
        assert {one.told == [None] for one in peers} == {True}
        assert peers[0].limiter.refusals["", "rpm"] > 0


async def test_headers_tell_of_all(redis: RedisServer) -> None:
    """What another gateway has granted counts."""
    key = key_of(rpm=10, tpm_out=100)
    async with Peer(redis.url)() as one, Peer(redis.url)() as other:
        await one.ask(key, Cost(0, 30))
        lines = (await other.ask(key, Cost(0, 20))).lines
        assert b"x-ratelimit-remaining-requests: 8\r\n" in lines
        assert b"x-ratelimit-remaining-tokens: 50\r\n" in lines


async def test_what_was_not_used_is_for_others(redis: RedisServer) -> None:
    """A settlement gives back what was reserved at another gateway, and charges what was used beyond it."""
    key = key_of(tpm_out=100)
    async with Peer(redis.url)() as one, Peer(redis.url)() as other:
        held = await one.ask(key, Cost(0, 90))
        assert not await other.grants(key, Cost(0, 20))
        held.settle(Used(0, 80))
        await one.settled()
        held = await other.ask(key, Cost(0, 20))
        held.settle(Used(0, 50))
        await other.settled()
        with pytest.raises(RateLimited, match="has used 130 of its 100 completion tokens"):
            await one.ask(key, Cost(0, 1))


async def test_a_request_that_reached_no_worker_counts_for_nothing(redis: RedisServer) -> None:
    key = key_of(rpm=1)
    async with Peer(redis.url)() as one, Peer(redis.url)() as other:
        (await one.ask(key)).settle(None)
        await one.settled()
        assert await other.grants(key)


async def test_concurrency_over_all(redis: RedisServer) -> None:
    """A place is free for any gateway as soon as a request has ended at one."""
    key = key_of(concurrency=2)
    async with Peer(redis.url)() as one, Peer(redis.url)() as other:
        held = [await one.ask(key), await other.ask(key)]
        with pytest.raises(RateLimited, match="has 2 of its 2 requests at a time"):
            await one.ask(key)
        held[0].settle(Used(0, 0))
        await one.settled()
        assert await other.grants(key)


async def test_a_gateway_that_dies_holds_nothing_for_long(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places are given back for it; those of a gateway that lives stay, however long its request takes."""
    monkeypatch.setattr(redis_limiter, "ALIVE_MS", 3000)
    monkeypatch.setattr(redis_limiter, "RENEW_S", 0.1)
    key = key_of(concurrency=2)
    async with Peer(redis.url)() as lives, Peer(redis.url)() as other:
        dead = Peer(redis.url)
        await dead.redis.store.connect()
        running = asyncio.create_task(dead.redis.store.run())
        await lives.ask(key)
        await dead.ask(key)
        assert not await other.grants(key)
        running.cancel()
        async with asyncio.timeout(WAIT_S):
            while not await other.grants(key):  # noqa: ASYNC110  # nor has this
                await asyncio.sleep(0.05)
        assert not await other.grants(key)  # by now that of `lives` would be forgotten too


async def test_the_month_of_all(redis: RedisServer) -> None:
    """Tokens of the month add up over gateways, with what requests in flight have reserved."""
    key = key_of(monthly_tokens=100)
    async with Peer(redis.url)() as one, Peer(redis.url)() as other:
        (await one.ask(key, Cost(20, 30))).settle(Used(20, 20))
        await one.settled()
        held = await other.ask(key, Cost(10, 40))
        with pytest.raises(RateLimited, match="has used 40 of its 100 tokens this month"):
            await one.ask(key, Cost(10, 10))
        held.settle(Used(10, 40))
        await other.settled()
        with pytest.raises(QuotaExceeded, match="has used 90 of its 100 tokens this month"):
            await one.ask(key, Cost(10, 10))
        assert await one.grants(key, Cost(5, 5))


@pytest.mark.parametrize("recorded", [0, 40, 50])
async def test_a_gateway_that_starts_again_counts_its_month_once(redis: RedisServer, recorded: int) -> None:
    """Its record of the month is what it had told Redis before, or less: it has none, or lost the last second."""
    key = key_of(monthly_tokens=100)
    async with Peer(redis.url, name="node-1")() as one:
        (await one.ask(key, Cost(20, 30))).settle(Used(20, 30))
    again = Peer(redis.url, name="node-1")
    again.limiter.seed_month({"one": recorded})
    async with again() as one:
        (await one.ask(key, Cost(10, 10))).settle(Used(10, 10))
        await one.settled()
        with pytest.raises(QuotaExceeded, match="has used 70 of its 100 tokens this month"):
            await one.ask(key, Cost(40, 0))
        assert await one.grants(key, Cost(30, 0))


@pytest.mark.parametrize("lose", ["kill", "pause"])
async def test_without_redis_nothing_is_taken(redis: RedisServer, lose: str) -> None:
    """The default: a request that came before it was noticed gets the same answer, in time; all are told apart from
    those of keys without limits, which need no Redis. Once it is back, it goes on by itself."""
    key = key_of(rpm=100)
    async with Peer(redis.url, answer_s=0.25)() as one:
        assert await one.grants(key)
        getattr(redis, lose)()
        begun = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(one.ask(key) for _ in range(20)), return_exceptions=True)
        assert asyncio.get_running_loop().time() - begun < 5
        assert {type(answer) for answer in answers} == {Overloaded}
        with pytest.raises(Overloaded, match="limits of API key 'one' cannot be checked"):
            await one.ask(key)
        redis.start() if lose == "kill" else redis.go_on()
        await one.until(lambda: one.told[-1] is None)
        assert await one.grants(key)
        assert one.told[0] is one.told[-1] is None
        assert 3 <= len(one.told) <= 4  # reached, did not answer, and perhaps why not then, reached


@pytest.mark.parametrize("lose", ["kill", "pause"])
async def test_without_redis_each_gateway_has_its_own_limits(redis: RedisServer, lose: str) -> None:
    """The other setting: with what it has granted until then."""
    key = key_of(rpm=10)
    peers = [Peer(redis.url, is_open=True, answer_s=0.25) for _ in range(2)]
    async with peers[0]() as one, peers[1]() as other:
        assert [await one.grants(key) for _ in range(4)] == [True] * 4
        getattr(redis, lose)()
        assert sum([await one.grants(key) for _ in range(12)]) == 6
        assert sum([await other.grants(key) for _ in range(12)]) == 10
        redis.start() if lose == "kill" else redis.go_on()
        await other.until(lambda: one.told[-1] is other.told[-1] is None)
        assert not await one.grants(key)


async def test_a_request_let_through_without_redis_has_its_place_when_it_is_back(redis: RedisServer) -> None:
    key = key_of(concurrency=2)
    async with Peer(redis.url, is_open=True)() as one, Peer(redis.url, is_open=True)() as other:
        held = [await one.ask(key)]
        redis.kill()
        await one.until(lambda: one.told[-1])
        held.append(await one.ask(key))
        redis.start()
        await other.until(lambda: one.told[-1] is other.told[-1] is None)
        assert not await other.grants(key)
        for reservation in held:
            reservation.settle(Used(0, 0))
        await one.settled()
        assert await other.grants(key)


async def test_a_redis_that_forgot_everything_learns_the_months_again(redis: RedisServer) -> None:
    """Of each gateway, at once; also if it was emptied without being lost."""
    key = key_of(monthly_tokens=100)
    async with Peer(redis.url)() as one, Peer(redis.url)() as other:
        (await one.ask(key, Cost(40, 40))).settle(Used(40, 40))
        await one.settled()
        redis.kill()
        redis.start()
        await other.until(lambda: len(one.told) > 2 and one.told[-1] is other.told[-1] is None)
        with pytest.raises(QuotaExceeded, match="has used 80 of its 100 tokens"):
            await other.ask(key, Cost(40, 0))
        redis.ask("FLUSHALL")
        await other.until(lambda: redis.ask("KEYS", "*:month:*"))
        with pytest.raises(QuotaExceeded, match="has used 80 of its 100 tokens"):
            await other.ask(key, Cost(40, 0))


async def test_settlements_wait_for_redis(redis: RedisServer) -> None:
    """What ends while Redis does not answer is settled when it does."""
    key = key_of(tpm_out=100, concurrency=1)
    async with Peer(redis.url, answer_s=0.25)() as one:
        held = await one.ask(key, Cost(0, 100))
        redis.pause()
        with pytest.raises(Overloaded):
            await one.ask(ApiKey("other", limits=Limits(rpm=1)))
        held.settle(Used(0, 10))
        redis.go_on()
        await one.until(lambda: one.told[-1] is None)
        assert await one.grants(key, Cost(0, 90))


async def test_a_place_whose_grant_was_lost_is_free_again(redis: RedisServer) -> None:
    """Redis grants it when it goes on, and nobody hears that: the request was refused."""
    key = key_of(concurrency=1)
    async with Peer(redis.url, answer_s=0.25)() as one:
        redis.pause()
        with pytest.raises(Overloaded):
            await one.ask(key)
        redis.go_on()
        await one.until(lambda: one.told[-1] is None)
        assert await one.grants(key)


async def test_the_end_settles(redis: RedisServer) -> None:
    """What a gateway has settled last is told before it ends."""
    key = key_of(tpm_out=100)
    async with Peer(redis.url)() as one:
        (await one.ask(key, Cost(0, 100))).settle(Used(0, 1))
    async with Peer(redis.url)() as other:
        assert await other.grants(key, Cost(0, 99))


async def test_a_wrong_password_is_told(start_redis: StartRedis, tmp_path: Path) -> None:
    """So is a missing one. Neither says what was sent."""
    server, file = start_redis(requirepass="right-one"), tmp_path / "password"
    file.write_text("wrong-one\n")
    wrong, none = Peer(server.url, password=file), Peer(server.url)
    async with wrong(), none():
        assert wrong.told == [
            f"redis://127.0.0.1:{server.port} does not take the password that GATEWAY_LIMITS_REDIS_PASSWORD_FILE "
            "names, or not its user"
        ]
        assert none.told == [
            f"redis://127.0.0.1:{server.port} asks for a password: name a file that holds it in "
            "GATEWAY_LIMITS_REDIS_PASSWORD_FILE"
        ]
    file.write_text("right-one\n")
    async with Peer(server.url, password=file)() as right:
        assert right.told == [None]


async def test_the_rights_that_the_docs_give_suffice(start_redis: StartRedis, tmp_path: Path) -> None:
    """Fewer are told."""
    operations = (Path(__file__).parents[4] / "docs/operations.md").read_text()
    documented = re.search(r"`user octet on >PASSWORD (.+?)`", operations)
    assert documented
    server, file = start_redis(), tmp_path / "password"
    file.write_text("secret")
    url = server.url.replace("//", "//octet@")
    server.ask("ACL", "SETUSER", "octet", "on", ">secret", *documented[1].split())
    script = Path(redis_limiter.__file__).with_name("limits.lua").read_text()
    for command in sorted(set(re.findall(r"redis\.call\('(\w+)'", script))):
        words = ["octet:limits:any"] * (least_words(server, command) - 1)
        assert server.ask("ACL", "DRYRUN", "octet", command, *words) == "OK", command
    async with Peer(url, password=file)() as peer:
        assert await peer.grants(key_of(rpm=1, monthly_tokens=9))
        await peer.settled()
        assert peer.told == [None]
    server.ask("ACL", "SETUSER", "octet", "-@sortedset")
    async with Peer(url, password=file)() as peer:
        assert "refuses its user a command; docs/operations.md lists the rights needed" in str(peer.told[0])


def least_words(server: RedisServer, command: str) -> int:
    """Of a command, its own name included: Redis does not judge the rights to one that has fewer."""
    return abs(int(server.ask("COMMAND", "INFO", command)[command.lower()]["arity"]))


async def test_a_replica_is_told(redis: RedisServer, start_redis: StartRedis) -> None:
    """It cannot be written to."""
    replica = start_redis(replicaof=f"127.0.0.1 {redis.port}")
    async with Peer(replica.url)() as peer:
        await peer.until(lambda: "replica" in str(peer.told[-1]))
        assert peer.told[-1] == (
            f"redis://127.0.0.1:{replica.port} is a replica that may not be written to: name its primary in "
            "GATEWAY_LIMITS_REDIS_URL"
        )


async def test_what_is_no_redis_is_told(redis: RedisServer) -> None:
    """Nobody listens, or somebody who speaks otherwise."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Peer(f"redis://127.0.0.1:{port}")() as other:
        assert "does not answer as Redis does" in str(other.told[0])
    server.close()
    async with Peer(f"redis://127.0.0.1:{port}")() as nobody:
        assert "cannot be reached; check GATEWAY_LIMITS_REDIS_URL" in str(nobody.told[0])


async def test_a_full_redis_is_told(redis: RedisServer) -> None:
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    async with Peer(redis.url)() as peer:
        assert "has no memory left" in str(peer.told[-1])
