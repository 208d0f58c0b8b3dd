"""The keeper: a round of discovery and probes every few seconds, and one log line for every change it sees."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.cards import Card, Catalog
from gateway.errors import ConfigError
from gateway.fleet import Address, Fleet
from gateway.keys import KeyRing
from gateway.logs import EventLog
from gateway.probes import WORKER_PORT, ProbeFailed, Probes
from gateway.settings import Settings
from gateway.upstream import Upstream
from gateway.workers import Worker, WorkerState, after_failure, after_success

ADDRESS = re.compile(r"http://(?P<host>[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})/?")
StaticWorkers = Mapping[str, Sequence[Address]]


class Keeper:
    """Keeps the fleet true: who is there, who is ready, what the weights jobs say, which keys are good."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        probes: Probes,
        upstream: Upstream,
        keys: KeyRing,
        log: EventLog,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._probes = probes
        self._upstream = upstream
        self._keys = keys
        self._log = log
        self._static = load_static(settings.workers_file, fleet.catalog)

    async def run(self) -> None:
        """One round after another until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(self._settings.interval_s)

    async def round(self) -> None:
        """Looks at every slug once, all at the same time."""
        async with asyncio.TaskGroup() as group:
            for card in self._fleet.catalog.cards:
                group.create_task(self._look_at(card))
        self._upstream.sweep()
        self._refresh_keys()

    async def _look_at(self, card: Card) -> None:
        status = self._fleet.slugs[card.slug]
        joined, left = self._fleet.refresh(card.slug, await self._addresses(card))
        self._report(joined, left)
        status.weights = (
            None if status.workers or not self._settings.dns else await self._probes.weights(card.slug)
        )
        await asyncio.gather(*(self._probe(worker, card) for worker in status.workers.values()))

    async def _addresses(self, card: Card) -> list[Address]:
        found = await self._probes.resolve(card.slug, WORKER_PORT) if self._settings.dns else []
        found += self._static.get(card.slug, ())
        return [*found, *await self._still_serving(card, found)]

    async def _still_serving(self, card: Card, found: list[Address]) -> list[Address]:
        """Workers that the resolver no longer names but that serve on: a resolver that fails takes no model away."""
        missing = [
            worker for address, worker in self._fleet.slugs[card.slug].workers.items() if address not in found
        ]
        answers = await asyncio.gather(*(self._probes.passes(worker, card) for worker in missing))
        return [(worker.host, worker.port) for worker, passed in zip(missing, answers, strict=True) if passed]

    async def _probe(self, worker: Worker, card: Card) -> None:
        before, reason_before = worker.state, worker.reason
        try:
            await self._probes.worker(worker, card)
        except ProbeFailed as failure:
            worker.state = after_failure(worker, str(failure), self._settings.probe_fall)
        else:
            worker.state = after_success(worker)
        if worker.state is not before or worker.reason != reason_before:
            self._report_state(worker)

    def _report(self, joined: Sequence[Worker], left: Sequence[Worker]) -> None:
        for worker in joined:
            self._log.info("worker_joined", slug=worker.slug, worker=worker.address)
        for worker in left:
            self._upstream.forget(worker)
            self._log.info("worker_left", slug=worker.slug, worker=worker.address, state=worker.state)

    def _report_state(self, worker: Worker) -> None:
        level = self._log.info if worker.state is WorkerState.READY else self._log.warning
        level(
            "worker_state", slug=worker.slug, worker=worker.address, state=worker.state, reason=worker.reason
        )

    def _refresh_keys(self) -> None:
        try:
            changed = self._keys.refresh()
        except ConfigError as error:
            self._log.error("keys_unreadable", message=f"{error}; the keys read before stay in force")
        else:
            if changed:
                self._log.info("keys_read")


def load_static(path: Path | None, catalog: Catalog) -> StaticWorkers:
    """Reads GATEWAY_WORKERS_FILE. Raises ConfigError naming the line that is wrong."""
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"GATEWAY_WORKERS_FILE={path} cannot be read: {error}") from error
    return parse_static(text, path, {card.slug for card in catalog.cards})


def parse_static(text: str, path: Path, slugs: set[str]) -> StaticWorkers:
    """Lines `<slug> http://host:port`, comments with #. Raises ConfigError naming the line."""
    workers: dict[str, list[Address]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in slugs:
            raise ConfigError(
                f"{path}:{number} is not `<slug> http://host:port` with a declared slug ({', '.join(sorted(slugs))})"
            )
        workers.setdefault(words[0], []).append(parse_address(words[1], f"{path}:{number}"))
    return workers


def parse_address(url: str, where: str) -> Address:
    match = ADDRESS.fullmatch(url)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ConfigError(f"{where}: {url!r} is not http://host:port")
    return match["host"], int(match["port"])
