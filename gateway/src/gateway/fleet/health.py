"""A worker's health: what was seen of it, and the state that follows. Pure: a value and an event in, a value out.

Three witnesses, none of which can overrule another:

    probes     /health and /v1/models: alive after `rise` that pass (one at its first start), not after `fall` that fail
    requests   failures in a row eject it for a while; then one request at a time is on trial, whose success readmits it
    progress   progress.Progress: standing still makes it suspect, then takes it down until it moves again

So a passing probe ends no ejection, and a good answer does not revive a worker whose engine stands still.
"""

import errno
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from gateway.config.catalog import DOWN_S, SUSPECT_S
from gateway.fleet.engine_metrics import Vitals
from gateway.fleet.progress import Progress

MIN_SLOW_START_FACTOR: Final = 0.1  # of the requests that a worker gets just after it became ready
OUR_LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class WorkerState(StrEnum):
    """In the order in which they are judged: the first that fits."""

    MISNAMED = "misnamed"  # answers, but serves other names than its card says
    STARTING = "starting"  # seen, never ready yet
    DOWN = "down"  # fails its probes, or stands still
    EJECTED = "ejected"  # failed requests, for a while
    HALF_OPEN = "half_open"  # ejected before; one request at a time is on trial
    SUSPECT = "suspect"  # takes requests where no ready worker is left
    READY = "ready"


class Failure(StrEnum):
    """What counts against a worker. Its 4xx never does, nor what the client or the gateway itself has caused."""

    CONNECT = "connect"  # no connection could be made
    RESET = "reset"  # the connection ended, or made no sense, before the answer's head
    FIRST_BYTE = "first_byte"  # nothing came in time
    UNAVAILABLE = "unavailable"  # its own 502, 503 or 504
    BROKEN = "broken"  # an answer that had begun well and was not completed


TAKES_REQUESTS: Final = frozenset(
    {WorkerState.READY, WorkerState.SUSPECT, WorkerState.HALF_OPEN, WorkerState.EJECTED}
)


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of one worker: counts in a row, and seconds."""

    rise: int = 2
    fall: int = 3
    failures: int = 5
    ejection_s: float = 30.0
    ejection_max_s: float = 300.0
    slow_start_s: float = 60.0
    suspect_s: float = SUSPECT_S
    down_s: float = DOWN_S
    longest_gap_s: float = 6.0  # between two readings; more means that the gateway slept


@dataclass(frozen=True, slots=True)
class Health:
    """What was seen of one worker. Counts are in a row; times are those of the caller's clock."""

    started: bool = False
    alive: bool = False
    misnamed: bool = False
    probed: str = "not probed yet"  # why the last probe did not pass
    passed_probes: int = 0
    failed_probes: int = 0
    doubt: str = ""  # why it is not trusted, until a probe passes or a good answer comes
    unreachable: int = 0  # connections that could not be made, until then
    failures: int = 0  # requests without a good answer's head
    broken: int = 0  # answers that were not completed
    last_failure: Failure | None = None
    ejections: int = 0
    ejected_until: float | None = None
    spared: bool = False  # it was to be ejected, but for want of another worker it is suspect so long
    readmitted: float = 0.0
    progress: Progress = Progress()  # noqa: RUF009  # frozen
    slow_start_from: float = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether a good answer would change nothing."""
        return not (self.failures or self.broken or self.doubt) and self.ejected_until is None

    @property
    def consecutive_failures(self) -> int:
        return max(self.failures, self.broken)

    def state(self, rules: Rules, now: float) -> WorkerState:
        if self.misnamed:
            return WorkerState.MISNAMED
        if not self.started:
            return WorkerState.STARTING
        if not self.alive or self.progress.hung_s >= rules.down_s:
            return WorkerState.DOWN
        if self.ejected_until is not None and now >= self.ejected_until:
            return WorkerState.HALF_OPEN
        if self.ejected_until is not None and not self.spared:
            return WorkerState.EJECTED
        return WorkerState.SUSPECT if self._suspicion(rules) else WorkerState.READY

    def reason(self, rules: Rules, now: float) -> str:
        """Why it is in its state, in words for a log line; empty for a ready worker."""
        state = self.state(rules, now)
        if state is WorkerState.READY:
            return ""
        if state is WorkerState.HALF_OPEN:
            return f"{self._told()} before; now one request at a time is on trial"
        if state is WorkerState.EJECTED:
            return f"{self._told()}: no requests for {(self.ejected_until or now) - now:.0f} s"
        if state is WorkerState.DOWN and self.alive:
            return f"its requests have not moved for {self.progress.hung_s:.0f} s"
        return self._suspicion(rules) if state is WorkerState.SUSPECT else self.probed

    def slow_start_factor(self, rules: Rules, now: float) -> float:
        """The part of a worker's due that it gets, from LEAST_SHARE to 1 over `ramp_s` after it became ready.

        On trial it is whole: the trial is limited by count, and must come about.
        """
        if not rules.slow_start_s or self.ejected_until is not None:
            return 1.0
        grown = (now - self.slow_start_from) / rules.slow_start_s
        return min(1.0, MIN_SLOW_START_FACTOR + (1 - MIN_SLOW_START_FACTOR) * grown)

    def _suspicion(self, rules: Rules) -> str:
        if self.doubt:
            return self.doubt
        if self.ejected_until is not None:
            return f"{self._told()}, and no other worker to turn to"
        if self.progress.still_s >= rules.suspect_s:
            return f"its requests have not moved for {self.progress.still_s:.0f} s"
        return ""

    def _told(self) -> str:
        return f"{self.consecutive_failures} failed requests in a row, the last: {self.last_failure}"


def probe_passed(health: Health, vitals: Vitals | None, in_flight: int, rules: Rules, now: float) -> Health:
    """A probe passed. vitals: what /metrics said, None if it said nothing; in_flight: our requests on the worker."""
    passed, hung = health.passed_probes + 1, health.progress.hung_s >= rules.down_s
    alive = health.alive or passed >= (rules.rise if health.started else 1)
    return replace(
        health, alive=alive, started=health.started or alive, misnamed=False,
        probed="" if alive else f"{passed} of {rules.rise} probes have passed", passed_probes=passed, failed_probes=0,
        doubt="", unreachable=0, progress=_progress(health.progress, vitals, in_flight, rules, now),
        slow_start_from=health.slow_start_from if health.alive and not hung else _slow_start_from(health, now),
    )  # fmt: skip


def _slow_start_from(health: Health, now: float) -> float:
    """When a worker that is ready now began to be. One that was so at the first look is as old as it likes: the gateway
    may be the newcomer."""
    return now if health.started or health.failed_probes else -math.inf


def _progress(
    progress: Progress, vitals: Vitals | None, in_flight: int, rules: Rules, now: float
) -> Progress:
    """As read; what has hung too long hangs on until it moves, though its requests may be taken away meanwhile."""
    if vitals is None:
        return progress.silent(now)
    is_hung = progress.hung_s >= rules.down_s
    if is_hung and progress.last is not None and not vitals.moved_since(progress.last):
        return progress.silent(now)
    return progress.heard(vitals, in_flight, now, rules.longest_gap_s)


def probe_failed(health: Health, reason: str, rules: Rules, *, certain: bool = False) -> Health:
    """A probe failed. certain: by a refused connection or a refusal, not for want of time: not trusted from now on."""
    failed = health.failed_probes + 1
    down = failed + health.unreachable >= rules.fall
    return replace(
        health, alive=health.alive and not down, misnamed=health.misnamed and not down, probed=reason,
        passed_probes=0, failed_probes=failed, doubt=reason if certain else health.doubt,
    )  # fmt: skip


def names_differ(health: Health, reason: str) -> Health:
    """A worker answers but serves other names: another model has its address, or its card is wrong. No second look."""
    return replace(health, alive=False, misnamed=True, probed=reason, passed_probes=0, failed_probes=0)


def request_succeeded(health: Health, rules: Rules, now: float) -> Health:
    """A good answer has begun. An ejection takes its time all the same; a trial is passed."""
    if health.ejected_until is not None:
        if health.state(rules, now) is WorkerState.EJECTED:
            return health
        slow_start_from = health.slow_start_from if health.spared else now
        health = replace(
            health,
            ejected_until=None,
            spared=False,
            readmitted=now,
            slow_start_from=slow_start_from,
            broken=0,
        )
    return replace(health, failures=0, doubt="", unreachable=0)


def request_completed(health: Health, rules: Rules, now: float) -> Health:
    """A good answer has come to its end. The head alone would excuse a worker whose every answer breaks off."""
    health = request_succeeded(health, rules, now)
    return health if health.ejected_until is not None else replace(health, broken=0)


def request_failed(health: Health, failure: Failure, rules: Rules, now: float, *, spare: bool) -> Health:
    """A request failed. spare: whether every pool of the worker has another; without, it is suspect and never ejected.

    A worker that gets no requests any more is not judged by those that it had: such late failures change nothing.
    """
    state = health.state(rules, now)
    if state not in TAKES_REQUESTS or state is WorkerState.EJECTED:
        return health
    health = _count(health, failure, rules)
    on_trial = state is WorkerState.HALF_OPEN
    if not on_trial and (health.consecutive_failures < rules.failures or (health.spared and not spare)):
        return health
    return _eject(health, rules, now, spared=not spare)


def _count(health: Health, failure: Failure, rules: Rules) -> Health:
    if failure is Failure.BROKEN:
        return replace(health, broken=health.broken + 1, last_failure=failure)
    health = replace(health, failures=health.failures + 1, last_failure=failure)
    return _unreachable(health, rules) if failure is Failure.CONNECT else health


def _unreachable(health: Health, rules: Rules) -> Health:
    """Nobody listens: not trusted, and nearer to its fall, for which one probe at least must have failed as well."""
    unreachable = health.unreachable + 1
    down = health.failed_probes > 0 and health.failed_probes + unreachable >= rules.fall
    return replace(
        health, alive=not down, unreachable=unreachable, doubt="a connection to it could not be made"
    )


def _eject(health: Health, rules: Rules, now: float, *, spared: bool) -> Health:
    """Each ejection soon after another lasts twice as long."""
    soon = now - health.readmitted < rules.ejection_max_s or health.ejected_until is not None
    before = health.ejections if soon else 0
    length = min(rules.ejection_s * 2 ** min(before, 16), rules.ejection_max_s)
    return replace(health, ejections=before + 1, ejected_until=now + length, spared=spared)


def is_our_limit(error: OSError) -> bool:
    """Whether a connection failed for want of files, ports or memory of the gateway's own: no fault of the worker."""
    return error.errno in OUR_LIMITS
