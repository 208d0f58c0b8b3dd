"""The composition root: builds every part of a gateway process from the settings, and joins them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.api.errors import GatewayError
from gateway.api.routes import Routes
from gateway.body.budget import BodyBudget
from gateway.config.catalog import load_catalog
from gateway.config.certificate import certificate_of
from gateway.config.key_ring import KeyRing
from gateway.config.model_options import load_models
from gateway.config.settings import Settings
from gateway.control.api import data_app, preflight
from gateway.control.ops import ops_app
from gateway.discovery.loop import DiscoveryLoop
from gateway.discovery.probes import Probes
from gateway.fleet.fleet import Fleet, Transition
from gateway.fleet.health import Rules
from gateway.limits.limiter import Limiter
from gateway.limits.table import Table
from gateway.proxy.admission import Admission
from gateway.proxy.context import Context
from gateway.proxy.handler import UNKNOWN
from gateway.proxy.queue import Queues
from gateway.proxy.record import Recorder
from gateway.server.cors import Cors
from gateway.server.host_check import HostCheck
from gateway.server.listener import Listener
from gateway.telemetry.audit import audit_of
from gateway.telemetry.logs import EventLog
from gateway.telemetry.metrics import Metrics
from gateway.upstream.pool import Upstream
from gateway.usage.ledger import Ledger, Sink
from gateway.usage.store import month_totals
from gateway.usage.writer import InLoop, UsageWriter

if TYPE_CHECKING:
    from gateway.limits.redis_limiter import RedisLimiter

MAX_MISSED_ROUNDS = 3  # probe rounds missed in a row; more mean that the gateway itself slept


class Gateway:
    """All objects of one gateway process. Raises ConfigError if cards, keys, models or static workers are wrong. sink:
    takes what keys use, if another process writes that; None: this one does. table: what keys have used of their
    limits, shared with other processes; None: this one's alone."""

    def __init__(
        self, settings: Settings, log: EventLog, sink: Sink | None = None, table: Table | None = None
    ) -> None:
        self.settings, loop = settings, asyncio.get_running_loop()
        self.draining = False
        self.certificate = certificate_of(settings)
        self._log = log
        self.fleet = Fleet.of(load_catalog(settings.cards_dir), rules_of(settings))
        self._upstream = Upstream(settings.connect_timeout_s, settings.pool_idle_s, loop)
        probes = Probes(settings.probe_timeout_s)
        models = load_models(settings, self.fleet.catalog)
        self._audit = audit = audit_of(settings, log, loop)
        keys = KeyRing(settings.api_keys_file, models, salts=settings.cache_salt == "key")
        queues = Queues()
        cors, host_check = Cors(settings.cors_origins.split()), host_check_of(settings)
        self._bodies = BodyBudget(settings.bodies_bytes // settings.processes)  # this process's part
        table = table or Table()
        self.limiter = Limiter(table, keys.counted)
        self._keys = keys
        if keys.monthly():
            self._seed(month_totals(settings.state_dir))
        self.redis = redis_limiter_of(settings, self.limiter, table.identity, log)
        self.metrics = metrics = Metrics(
            self.fleet, queues, log, self._bodies, audit, self.limiter, self.redis
        )
        self.queues = queues
        self.fleet.observe(self._serve_queues)  # a worker that has become ready has room
        self.discovery = DiscoveryLoop(
            settings, self.fleet, probes, self._upstream, keys, log, audit, self._seed_again
        )
        self._writer = usage_writer(settings, log) if sink is None else None
        sink = sink or self._writer
        self._ledger = Ledger(sink, loop) if sink is not None and not keys.is_open else None
        recorder = Recorder(metrics, log, loop, self._ledger)
        context = Context(
            settings, self.fleet, models, keys, self._upstream, queues, log, recorder, self.limiter, audit,
            self.redis,
        )  # fmt: skip
        local = data_app(self.fleet, models, keys, int(time.time()), lambda: self.draining)
        self._admission = Admission(context, keys, cors, host_check, local, preflight)
        self.ops = ops_app(self.fleet, metrics)

    def listener(self) -> Listener:
        """Return what all connections of the data port share; `serve` calls this once."""
        return Listener(
            Routes(), self.settings, self._admission.prepare, self.metrics.count_lag, self._note_refusal,
            self._log.fault, self._upstream.loop, self._upstream.coalescer, self._bodies,
        )  # fmt: skip

    def _note_refusal(self, error: GatewayError) -> None:
        """Count and log bytes that were no valid request, for the listener: they have no handler to log them."""
        self.metrics.count_error(UNKNOWN, error.code)
        self._log.info("refused", status=error.status, code=error.code, message=error.message)

    def _serve_queues(self, transition: Transition) -> None:
        """Send what waits for the models of a worker whose state has changed: there may be room. The fleet calls it."""
        self.queues.serve(self.fleet.models_of(transition.worker))

    def _seed(self, totals: Mapping[str, int]) -> None:
        """Tell the limiter what keys with a monthly limit have used in this month, by the record of usage."""
        monthly = self._keys.monthly()
        self.limiter.seed_month({name: tokens for name, tokens in totals.items() if name in monthly})

    async def _seed_again(self) -> None:
        """Do so when the keys have been read again: one may have its first limit. Reads in a thread."""
        if self._keys.monthly():
            self._seed(await asyncio.to_thread(month_totals, self.settings.state_dir))

    async def keep_redis(self) -> None:
        """Tell Redis what requests reserve and use, until `redis.store.end`; `serve` runs this as a task. Without
        Redis, wait until cancelled."""
        if self.redis is None:
            await asyncio.Event().wait()
        else:
            await self.redis.store.run()

    @asynccontextmanager
    async def resources(self) -> AsyncIterator[None]:
        """Keep the audit log and the record of usage, if there are any, while `serve` runs. After its drain, write
        what is left of both, and close idle connections to workers, and those being opened."""
        if self._writer is not None:
            self._writer.start()
        keeping = asyncio.create_task(self._audit.keep()) if self._audit is not None else None
        try:
            yield
        finally:
            self._upstream.close()
            if self._ledger is not None:
                self._ledger.flush()
            if self._writer is not None:
                self._writer.close()
            if keeping is not None:
                keeping.cancel()
            if self._audit is not None:
                self._audit.close()


def usage_writer(settings: Settings, log: EventLog) -> UsageWriter | None:
    """Return the writer of the record of usage; None without a key file, as nobody's use could be told apart."""
    if settings.api_keys_file is None:
        return None
    return UsageWriter(settings.state_dir, settings.usage_days, InLoop(log, asyncio.get_running_loop()))


def redis_limiter_of(
    settings: Settings, limiter: Limiter, fresh: str, log: EventLog
) -> "RedisLimiter | None":
    """Return the limits over several gateways, or None if the settings name no Redis. fresh: this gateway's name there
    if it has none yet. Raises ConfigError."""
    if settings.limits_redis_url is None:
        return None
    from gateway.limits.redis_address import address_of  # with the library, 20 MB that few gateways need
    from gateway.limits.redis_identity import identity_of
    from gateway.limits.redis_limiter import RedisLimiter

    address = address_of(settings.limits_redis_url, settings.limits_redis_password_file)
    is_open = settings.limits_without_redis == "open"
    meanwhile = "this gateway alone holds keys to their limits" if is_open else "keys with limits get a 503"

    def tell(reason: str | None) -> None:
        if reason is None:
            log.info("limits_store_reached", store=address.name)
        else:
            log.error("limits_store_lost", message=f"{reason}. Until it is back, {meanwhile}")

    gateway = identity_of(settings.state_dir, fresh)
    return RedisLimiter(
        limiter, address, gateway, tell, answer_s=settings.limits_redis_timeout_s, is_open=is_open
    )


def host_check_of(settings: Settings) -> HostCheck:
    """Return the check of `Host` that the settings ask for: by it web pages cannot use a gateway without keys."""
    return HostCheck(
        settings.bind, settings.allowed_hosts.split(),
        is_open=settings.open, has_keys=settings.api_keys_file is not None,
    )  # fmt: skip


def rules_of(settings: Settings) -> Rules:
    """Return the limits of a worker's health that the settings give; its card adds those on progress."""
    return Rules(
        rise=settings.probe_rise, fall=settings.probe_fall, failures=settings.eject_after,
        ejection_s=settings.ejection_s, ejection_max_s=settings.ejection_max_s, slow_start_s=settings.slow_start_s,
        longest_gap_s=MAX_MISSED_ROUNDS * settings.interval_s,
    )  # fmt: skip
