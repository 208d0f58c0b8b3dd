"""The background loops: discovery and probes every few seconds, with one log line for every change they find."""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.api.errors import ConfigError
from gateway.config.catalog import Card, Catalog
from gateway.config.key_file import without_secrets
from gateway.config.key_ring import KeyRing
from gateway.config.settings import Settings
from gateway.discovery.probes import WORKER_PORT, NamesDiffer, OwnLimit, ProbeFailed, Probes
from gateway.fleet.fleet import Address, Fleet, Transition
from gateway.fleet.health import WorkerState
from gateway.fleet.workers import Worker
from gateway.telemetry.audit import AuditTrail
from gateway.telemetry.logs import EventLog
from gateway.upstream.pool import Upstream

JITTER = 0.1  # of the interval, so that several gateways do not ask in step
KEYS_S = 1.0  # between looks at the key file: two of them find a change, and it counts within 5 s
STAGGER_S = 0.002  # between the starts of two probes, so that a round of many does not hold up the streams
ADDRESS = re.compile(r"http://(?P<host>[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})/?")
StaticWorkers = Mapping[str, Sequence[Address]]


class DiscoveryLoop:
    """Keeps the fleet up to date: which workers exist and are ready, how weights jobs progress, which keys hold.
    keys_read: called when the keys have been read again."""

    def __init__(
        self, settings: Settings, fleet: Fleet,
        probes: Probes, upstream: Upstream, keys: KeyRing, log: EventLog, audit: AuditTrail | None = None,
        keys_read: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._fleet = fleet
        self._probes = probes
        self._upstream = upstream
        self._keys = keys
        self._log = log
        self._audit = audit
        self._keys_read = keys_read
        self._static = load_static(settings.workers_file, fleet.catalog)
        self._random = random.Random()  # noqa: S311  # for jitter
        self._is_limited = False
        fleet.observe(self._report_state)

    async def run_once(self) -> None:
        """Run discovery and probes once, before the gateway listens. A slow resolver does not delay that for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.probe_timeout_s):
                await self.discover()
                await self.probe()

    async def run(self) -> None:
        """Run discovery, probes and looks at the key file side by side until `serve` cancels this: a slow resolver must
        not delay a probe, nor keep a revoked key in force."""
        interval_s = self._settings.interval_s
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self.probe, interval_s))
            group.create_task(self._repeat(self.discover, interval_s))
            group.create_task(self._repeat(self._refresh_keys, min(KEYS_S, interval_s)))

    async def _repeat(self, work: Callable[[], Awaitable[None]], interval_s: float) -> None:
        """Call `work` every interval, with jitter, for ever; if it takes longer than that, again as soon as it ends."""
        loop = asyncio.get_running_loop()
        while True:
            next_at = loop.time() + interval_s * self._random.uniform(1 - JITTER, 1 + JITTER)
            await work()
            await asyncio.sleep(max(0.0, next_at - loop.time()))

    async def discover(self) -> None:
        """Resolve every slug's workers and weights job; close worker connections that were idle for too long."""
        async with asyncio.TaskGroup() as group:
            for card in self._fleet.catalog.cards:
                group.create_task(self._look_for(card))
        self._upstream.sweep()

    async def probe(self) -> None:
        """Probe every worker once, in starts STAGGER_S apart; log if the gateway's own limits prevent it."""
        self._fleet.tick()
        cards = self._fleet.catalog.by_slug
        workers = enumerate(self._fleet.workers())
        probes = [self._probe(worker, cards[worker.slug], at * STAGGER_S) for at, worker in workers]
        self._report_limit(not all(await asyncio.gather(*probes)))

    async def _look_for(self, card: Card) -> None:
        """Update one slug's workers; ask for its weights job's progress only while it has none: they start after it."""
        status = self._fleet.slugs[card.slug]
        joined, left = self._fleet.refresh(card.slug, await self._addresses(card))
        self._apply_membership(joined, left)
        may_run = self._settings.dns and not status.workers
        status.weights = await self._probes.weights(card.slug) if may_run else None

    async def _addresses(self, card: Card) -> list[Address]:
        """Return the addresses of a slug's workers: from DNS, from the workers file, and those that still answer."""
        found = await self._probes.resolve(card.slug, WORKER_PORT) if self._settings.dns else []
        found += self._static.get(card.slug, ())
        return [*found, *await self._still_serving(card, found)]

    async def _still_serving(self, card: Card, found: list[Address]) -> list[Address]:
        """Return the addresses of workers that DNS lost but that pass a probe: a failing resolver takes none away."""
        known = self._fleet.slugs[card.slug].workers
        missing = [worker for address, worker in known.items() if address not in found]
        answers = await asyncio.gather(*(self._probes.passes(worker, card) for worker in missing))
        return [(worker.host, worker.port) for worker, passed in zip(missing, answers, strict=True) if passed]

    async def _probe(self, worker: Worker, card: Card, delay_s: float) -> bool:
        """Probe one worker and tell the fleet. Return False if the gateway's own limits kept it from asking. After a
        certain failure, such as a refused connection, ask its launcher what it does: it may be starting."""
        await asyncio.sleep(delay_s)
        try:
            self._fleet.probe_passed(worker, await self._probes.worker(worker, card))
        except NamesDiffer as failure:
            self._fleet.names_differ(worker, str(failure))
        except ProbeFailed as failure:
            self._fleet.probe_failed(worker, str(failure), certain=failure.certain)
            worker.start = await self._probes.launcher(worker) if failure.certain else None
        except OwnLimit:
            return False
        return True

    def _apply_membership(self, joined: Sequence[Worker], left: Sequence[Worker]) -> None:
        """Log which workers the fleet has added and removed, and close the idle connections to those that have left."""
        for worker in joined:
            self._log.info("worker_joined", slug=worker.slug, worker=worker.address)
        for worker in left:
            self._upstream.forget(worker)
            self._log.info("worker_left", slug=worker.slug, worker=worker.address, state=worker.state)

    def _report_state(self, transition: Transition) -> None:
        """Log a worker's new state, as a warning if it is not a better one. The fleet calls this at each transition."""
        worker, after = transition.worker, transition.after
        level = self._log.info if after in (WorkerState.READY, WorkerState.HALF_OPEN) else self._log.warning
        states = {"from": transition.before, "to": after}
        level("worker_state", slug=worker.slug, worker=worker.address, **states, reason=transition.reason)

    def _report_limit(self, is_limited: bool) -> None:
        """Log once when the gateway's own limits keep it from probing, and once when that is over."""
        if is_limited and not self._is_limited:
            self._log.error(
                "probes_impossible", message="no file, port or memory left for them: raise the nofile limit"
            )
        elif self._is_limited and not is_limited:
            self._log.info("probes_possible")
        self._is_limited = is_limited

    async def _refresh_keys(self) -> None:
        """Read the API keys again if their file has changed, in a thread, since a long file takes a while. If that
        fails, log it once: the old keys stay valid."""
        if not self._keys.has_changed():
            return
        before = self._keys.in_force
        try:
            if await asyncio.to_thread(self._keys.read):
                self._log.info("keys_read")
                if self._audit is not None:
                    self._audit.key_changes(before, self._keys.in_force)
                if self._keys_read is not None:
                    await self._keys_read()
        except ConfigError as error:
            self._report_keys(str(error))
        except Exception as error:  # noqa: BLE001  # boundary of one reload: no memory or thread must not end the gateway
            self._report_keys(without_secrets(f"the key file cannot be read now: {error!r}"))

    def _report_keys(self, fault: str) -> None:
        """Log why the key file could not be read, but not at each look."""
        if self._keys.is_news(fault):
            self._log.error("keys_unreadable", message=f"{fault}; the keys read before stay in force")


def load_static(path: Path | None, catalog: Catalog) -> StaticWorkers:
    """Read GATEWAY_WORKERS_FILE at the start; empty if it is not set. Raises ConfigError that names the wrong line."""
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"GATEWAY_WORKERS_FILE={path} cannot be read: {error}") from error
    return parse_static(text, path, {card.slug for card in catalog.cards})


def parse_static(text: str, path: Path, slugs: set[str]) -> StaticWorkers:
    """Parse lines of `<slug> http://host:port` with # comments. Raises ConfigError that names the wrong line."""
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
    """Return host and port of `http://host:port`. Raises ConfigError, which begins with `where`, the file and line."""
    match = ADDRESS.fullmatch(url)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ConfigError(f"{where}: {url!r} is not http://host:port")
    return match["host"], int(match["port"])
