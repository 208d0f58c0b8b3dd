"""Discovery by names: a slug's life from absent over its weights job to ready and away, as one loop sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.app import rules_of
from gateway.config.catalog import Card, load_catalog
from gateway.config.key_ring import KeyRing
from gateway.config.model_options import Models
from gateway.config.settings import Settings
from gateway.discovery.loop import DiscoveryLoop
from gateway.discovery.probes import ProbeFailed, Probes
from gateway.fleet.fleet import Address, Fleet, ModelState
from gateway.fleet.workers import Worker
from gateway.telemetry.logs import EventLog
from gateway.upstream.pool import Upstream
from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartWorker
from tests.integration.gateway.harness import Site

PROGRESS = {"slug": "alpha", "phase": "downloading", "bytes_done": 30, "bytes_total": 100, "eta_s": 120}


class NamedProbes(Probes):
    """The real probes, with a table in place of the name server."""

    def __init__(self, worker_port: int, launcher_port: int) -> None:
        super().__init__(timeout_s=1, worker_port=worker_port, launcher_port=launcher_port)
        self.names: dict[str, list[FakeWorker]] = {}

    async def resolve(self, name: str, port: int) -> list[Address]:
        return [("127.0.0.1", worker.port) for worker in self.names.get(name, [])]


class Lines:
    """A log's lines, kept."""

    dropped = 0

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def put(self, lines: list[bytes]) -> None:
        self.lines += lines

    def close(self) -> None: ...


class Watch:
    """A loop over real workers, whose rounds the test calls for."""

    def __init__(
        self, site: Site, worker_port: int = 1, launcher_port: int = 1, keys: KeyRing | None = None
    ) -> None:
        settings = Settings(cards_dir=site.cards, probe_fall=2, interval_s=0.1)
        self.fleet = Fleet.of(load_catalog(site.cards), rules_of(settings))
        self.probes = NamedProbes(worker_port, launcher_port)
        self.log = Lines()
        upstream = Upstream(1, 1, asyncio.get_running_loop())
        self.discovery = DiscoveryLoop(
            settings,
            self.fleet,
            self.probes,
            upstream,
            keys or KeyRing(None, Models({}, {})),
            EventLog(self.log),
        )

    async def state(self, **names: FakeWorker | list[FakeWorker]) -> ModelState:
        """The model's state after a round in which these names resolve (`_` stands for `-`)."""
        lists = {name: found if isinstance(found, list) else [found] for name, found in names.items()}
        self.probes.names = {name.replace("_", "-"): found for name, found in lists.items()}
        await self.discovery.discover()
        await self.discovery.probe()
        return self.fleet.model_state("alpha")

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.lines]


@pytest.fixture
async def watch(site: Site) -> Watch:
    """A loop of `alpha`."""
    return Watch(site)


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("can't start new thread")])
async def test_keys_outlive_a_machine_at_its_limits(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Without memory or threads the loop goes on with the keys that it has, tells that once, and reads them later."""
    file = tmp_path / "keys"
    file.write_text(f"sha256:{'a' * 64}\n")
    watch = Watch(site, keys=KeyRing(file, Models({}, {})))
    file.write_text(f"sha256:{'a' * 64}\nsha256:{'b' * 64}\n")
    reads, is_read = [], asyncio.Event()

    async def to_thread(read: Callable[[], bool]) -> bool:
        reads.append(read)
        if len(reads) < 4:
            raise fault
        is_read.set()
        return read()

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    running = asyncio.create_task(watch.discovery.run())
    async with asyncio.timeout(40):
        await is_read.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert watch.events() == ["keys_unreadable", "keys_read"]
    assert type(fault).__name__ in json.loads(watch.log.lines[0])["message"]


async def test_a_slug_from_absent_to_ready_and_away(watch: Watch, start_worker: StartWorker) -> None:
    """Nothing, weights job, loading worker, ready worker, restart, nothing: each round says what clients may expect."""
    job, worker = start_worker(), start_worker("alpha", health=503)
    job.pages["/progress"] = json.dumps(PROGRESS).encode()
    assert await watch.state() is ModelState.ABSENT
    assert await watch.state(alpha_weights=job) is ModelState.LOADING
    assert "weights 30 %, about 2 min" in watch.fleet.why_unavailable("alpha").message
    assert await watch.state() is ModelState.ABSENT
    assert await watch.state(alpha=worker) is ModelState.LOADING
    worker.health = 200
    assert await watch.state(alpha=worker) is ModelState.READY
    worker.health = 503
    assert await watch.state(alpha=worker) is ModelState.READY
    assert await watch.state(alpha=worker) is ModelState.DOWN
    worker.health = 200
    assert await watch.state(alpha=worker) is ModelState.DOWN
    assert await watch.state(alpha=worker) is ModelState.READY
    worker.kill()
    assert await watch.state() is ModelState.ABSENT
    assert watch.events().count("worker_joined") == watch.events().count("worker_left") == 1


async def test_a_start_is_told_by_its_launcher(site: Site, start_worker: StartWorker) -> None:
    """While the worker is not up, its launcher says how far it is; once it answers, nothing is left of that."""
    launcher, worker = start_worker(), start_worker("alpha", health=503)
    watch = Watch(site, worker.port, launcher.port)
    launcher.pages["/state"] = json.dumps({"phase": "loading", "percent": 43, "left_s": 290}).encode()
    assert await watch.state(alpha=worker) is ModelState.LOADING
    assert "is loading (loading 43 %, about 5 min)" in watch.fleet.why_unavailable("alpha").message
    launcher.pages["/state"] = json.dumps({"phase": "back-off", "trouble": "crash"}).encode()
    worker.kill()
    await watch.state(alpha=worker)
    assert "is loading (crash)" in watch.fleet.why_unavailable("alpha").message
    worker.revive()
    worker.health = 200
    assert await watch.state(alpha=worker) is ModelState.READY
    assert [one.start for one in watch.fleet.workers()] == [None]


async def test_a_worker_that_is_warmed_joins_once_it_lets_others_in(
    site: Site, start_worker: StartWorker
) -> None:
    """Its vLLM answers its launcher alone until then: to the gateway it is loading, and clients read what it is at."""
    launcher, worker = start_worker(), start_worker("alpha", health=503)
    watch = Watch(site, worker.port, launcher.port)
    launcher.pages["/state"] = json.dumps({"phase": "warming", "percent": None, "left_s": 12.5}).encode()
    assert await watch.state(alpha=worker) is ModelState.LOADING
    assert "is loading (warming, about 1 min)" in watch.fleet.why_unavailable("alpha").message
    assert watch.fleet.pool("alpha") == ()
    launcher.pages["/state"] = json.dumps({"phase": "ready"}).encode()
    worker.health = 200
    assert await watch.state(alpha=worker) is ModelState.READY


async def test_a_job_that_says_nothing_yet_is_loading(watch: Watch, start_worker: StartWorker) -> None:
    """A weights job whose /progress fails or is no object still means that the model is on its way."""
    job = start_worker()
    for page in (b"not json", b"[1]", b"{}"):
        job.pages["/progress"] = page
        assert await watch.state(alpha_weights=job) is ModelState.LOADING
    job.kill()
    assert await watch.state(alpha_weights=job) is ModelState.LOADING


async def test_replicas_join_and_leave(watch: Watch, start_worker: StartWorker) -> None:
    """Every address behind the name is a worker of its own."""
    first, second = start_worker("alpha"), start_worker("alpha")
    await watch.state(alpha=[first, second])
    assert [worker.port for worker in watch.fleet.workers()] == [first.port, second.port]
    first.kill()
    assert await watch.state(alpha=[second]) is ModelState.READY
    assert [worker.port for worker in watch.fleet.workers()] == [second.port]


async def test_a_resolver_that_fails_takes_no_worker_away(watch: Watch, start_worker: StartWorker) -> None:
    """A worker whose name is gone stays as long as it serves its model, and no longer."""
    worker = start_worker("alpha")
    assert await watch.state(alpha=worker) is ModelState.READY
    assert await watch.state() is ModelState.READY
    worker.pages["/v1/models"] = b'{"data": [{"id": "another"}]}'
    assert await watch.state() is ModelState.ABSENT


@pytest.mark.parametrize(
    "page", [b"not json", b"[]", b'{"data": 1}', b'{"data": [{}]}', b'{"data": [{"id": 5}, {"id": ["x"]}]}']
)
async def test_a_worker_that_talks_nonsense_is_not_ready(
    watch: Watch, start_worker: StartWorker, page: bytes
) -> None:
    """Whatever /v1/models holds, the loop goes on, and the worker stays out with a reason."""
    worker = start_worker("alpha")
    worker.pages["/v1/models"] = page
    assert await watch.state(alpha=worker) in (ModelState.LOADING, ModelState.DOWN)
    assert watch.fleet.workers()[0].reason


async def test_a_probe_ends_within_its_limit() -> None:
    """A worker that trickles its answer does not hold the round up beyond the probe's limit."""

    over = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\nx-long: ")
            while True:
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        over.set()

    probes = Probes(timeout_s=0.3)
    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        worker = Worker("alpha", *server.sockets[0].getsockname())
        with pytest.raises(ProbeFailed, match=r"no answer of 127.0.0.1:\d+ within 0.3 s"):
            await asyncio.wait_for(probes.worker(worker, Card("alpha", ("alpha",), "o/a")), 2)
        await asyncio.wait_for(over.wait(), 2)


async def test_names_resolve_through_the_system() -> None:
    """A name gives its addresses, one that does not exist gives none."""
    probes = Probes(timeout_s=2)
    found: Mapping[str, list[Address]] = {
        name: await probes.resolve(name, 8000) for name in ("localhost", "no-such-slug.invalid")
    }
    assert found == {"localhost": [("127.0.0.1", 8000)], "no-such-slug.invalid": []}
