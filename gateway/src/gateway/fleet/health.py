"""A worker's health: what was seen of it, and the state that follows. Pure: a value and an event in, a value out.

`Fleet` calls one function for each event and keeps the value. Three kinds of evidence, none of which overrules another:

    probes     /health and /v1/models: alive after `rise` that pass (one at its first start), not after `fall` that fail
    requests   failures in a row eject it for a while; then one request at a time is on trial, whose success readmits it
    progress   progress.Progress: standing still makes it suspect, then takes it down until it moves again

So a passing probe ends no ejection, and a good answer does not revive a worker whose engine stands still."""

import errno
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from gateway.config.catalog import DOWN_S, SUSPECT_S
from gateway.fleet.engine_metrics import EngineMetrics
from gateway.fleet.progress import Progress

MIN_SLOW_START_FACTOR: Final = 0.1  # of the requests that a worker gets just after it became ready
OUR_LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class WorkerState(StrEnum):
    """A worker's state. The members are checked in this order, and the first that fits is the state."""

    MISNAMED = "misnamed"  # answers, but serves other names than its card says
    STARTING = "starting"  # seen, never ready yet
    DOWN = "down"  # fails its probes, or stands still
    HALF_OPEN = "half_open"  # the time of its ejection (or as a spared one) is over; one request at a time is on trial
    EJECTED = "ejected"  # failed requests: it gets none for a while
    SUSPECT = "suspect"  # takes requests where no ready worker is left
    READY = "ready"


class Failure(StrEnum):
    """How a request failed, where that counts against its worker: no 4xx, no fault of the client or the gateway."""

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
    """The limits by which one worker is judged: numbers of events in a row, and seconds."""

    rise: int = 2  # probes that must pass for a worker to come back
    fall: int = 3  # failed probes after which it is down
    failures: int = 5  # failed requests after which it is ejected
    ejection_s: float = 30.0  # of a first ejection
    ejection_max_s: float = 300.0
    slow_start_s: float = 60.0  # until it gets its full share of requests; 0: none
    suspect_s: float = SUSPECT_S  # without progress
    down_s: float = DOWN_S
    longest_gap_s: float = 6.0  # between two readings; more means that the gateway slept


@dataclass(frozen=True, slots=True)
class Health:
    """Everything observed of one worker. Counters count events in a row; times come from the caller's clock."""

    started: bool = False  # a probe has passed at some time
    alive: bool = False  # as its probes and refused connections show
    misnamed: bool = False
    probed: str = "not probed yet"  # why the last probe did not pass
    passed_probes: int = 0
    failed_probes: int = 0
    doubt: str = ""  # why it is not trusted, until a probe passes or a good answer comes
    unreachable: int = 0  # connections that could not be made, until then
    failures: int = 0  # requests without a good answer's head
    broken: int = 0  # answers that were not completed
    last_failure: Failure | None = None
    ejections: int = 0  # one soon after another, each twice as long
    ejected_until: float | None = None  # None: neither ejected nor on trial
    spared: bool = False  # no other worker was left: until `ejected_until` it is suspect, and not ejected
    readmitted: float = 0.0  # when it last passed a trial
    progress: Progress = Progress()  # noqa: RUF009  # frozen
    slow_start_from: float = 0.0  # when it last became ready; -inf: no slow start

    @property
    def is_settled(self) -> bool:
        """Return whether one more good answer would change nothing, so that `Fleet` need not note it."""
        return not (self.failures or self.broken or self.doubt) and self.ejected_until is None

    @property
    def consecutive_failures(self) -> int:
        """Return how many requests in a row count against it, for its ejection and for /workers (see `_count`)."""
        return max(self.failures, self.broken)

    def state(self, rules: Rules, now: float) -> WorkerState:
        """Return the state at `now`: the first that fits, in the order in which `WorkerState` lists them."""
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
        """Return why the worker is in its state, in words for logs, errors and /workers; empty if it is ready. (`or
        now` is for mypy: an ejected one has the time.)"""
        state = self.state(rules, now)
        if state is WorkerState.READY:
            return ""
        if state is WorkerState.HALF_OPEN:
            return f"{self._describe_failures()} before; now one request at a time is on trial"
        if state is WorkerState.EJECTED:
            return f"{self._describe_failures()}: no requests for {(self.ejected_until or now) - now:.0f} s"
        if state is WorkerState.DOWN and self.alive:
            return f"its requests have not moved for {self.progress.hung_s:.0f} s"
        return self._suspicion(rules) if state is WorkerState.SUSPECT else self.probed

    def slow_start_factor(self, rules: Rules, now: float) -> float:
        """Return the worker's share of its usual requests, by which policies choose: from MIN_SLOW_START_FACTOR to 1 in
        `slow_start_s` after it became ready. On trial it has 1: trials are limited by number, and must take place."""
        if not rules.slow_start_s or self.ejected_until is not None:
            return 1.0
        grown = (now - self.slow_start_from) / rules.slow_start_s
        return min(1.0, MIN_SLOW_START_FACTOR + (1 - MIN_SLOW_START_FACTOR) * grown)

    def _suspicion(self, rules: Rules) -> str:
        """Return in words why the worker is suspect; "" if it is not, which makes it ready."""
        if self.doubt:
            return self.doubt
        if self.ejected_until is not None:
            return f"{self._describe_failures()}, and no other worker to turn to"  # it is spared
        if self.progress.still_s >= rules.suspect_s:
            return f"its requests have not moved for {self.progress.still_s:.0f} s"
        return ""

    def _describe_failures(self) -> str:
        """Return how many requests failed in a row and how the last one did, in words for `reason`."""
        return f"{self.consecutive_failures} failed requests in a row, the last: {self.last_failure}"


def probe_passed(
    health: Health, metrics: EngineMetrics | None, in_flight: int, rules: Rules, now: float
) -> Health:
    """Return the health after a passed probe. metrics: None if it brought none; in_flight: this gateway's requests. A
    worker that was down or hung begins its slow start now (see `_slow_start_from`)."""
    passed, hung = health.passed_probes + 1, health.progress.hung_s >= rules.down_s
    alive = health.alive or passed >= (rules.rise if health.started else 1)
    return replace(
        health, alive=alive, started=health.started or alive, misnamed=False,
        probed="" if alive else f"{passed} of {rules.rise} probes have passed", passed_probes=passed, failed_probes=0,
        doubt="", unreachable=0, progress=_progress(health.progress, metrics, in_flight, rules, now),
        slow_start_from=health.slow_start_from if health.alive and not hung else _slow_start_from(health, now),
    )  # fmt: skip


def _slow_start_from(health: Health, now: float) -> float:
    """Return when the slow start of a newly ready worker begins. A worker that was ready at the first look gets none:
    the gateway may be the newcomer."""
    return now if health.started or health.failed_probes else -math.inf


def _progress(
    progress: Progress, metrics: EngineMetrics | None, in_flight: int, rules: Rules, now: float
) -> Progress:
    """Return the progress with this reading added. A worker that hung too long stays hung until it moves, even if its
    requests are taken away."""
    if metrics is None:
        return progress.silent(now)
    is_hung = progress.hung_s >= rules.down_s
    if is_hung and progress.last is not None and not metrics.moved_since(progress.last):
        return progress.silent(now)
    return progress.heard(metrics, in_flight, now, rules.longest_gap_s)


def probe_failed(health: Health, reason: str, rules: Rules, *, certain: bool = False) -> Health:
    """Return the health after a failed probe. If the failure is certain (connection refused, or the worker says so),
    the worker is suspect at once; a mere timeout only counts. A misnamed one is that until it is down."""
    failed = health.failed_probes + 1
    down = failed + health.unreachable >= rules.fall
    return replace(
        health, alive=health.alive and not down, misnamed=health.misnamed and not down, probed=reason,
        passed_probes=0, failed_probes=failed, doubt=reason if certain else health.doubt,
    )  # fmt: skip


def names_differ(health: Health, reason: str) -> Health:
    """Return the health after a probe found other names than the card's: the address has passed to another model, or
    the card is wrong. The worker takes no requests until a probe passes."""
    return replace(health, alive=False, misnamed=True, probed=reason, passed_probes=0, failed_probes=0)


def request_succeeded(health: Health, rules: Rules, now: float) -> Health:
    """Return the health after a good answer has begun. A trial is passed, and the slow start begins; a running ejection
    is not shortened. A spared worker, which went on taking requests, is spared no more and gets no slow start."""
    if health.ejected_until is not None:
        if health.state(rules, now) is WorkerState.EJECTED:
            return health
        slow_start_from = health.slow_start_from if health.spared else now
        health = replace(
            health, ejected_until=None, spared=False, readmitted=now, slow_start_from=slow_start_from, broken=0
        )  # fmt: skip
    return replace(health, failures=0, doubt="", unreachable=0)


def request_completed(health: Health, rules: Rules, now: float) -> Health:
    """Return the health after a good answer has ended, which resets the count of broken answers: a head alone would
    excuse a worker whose every answer breaks off."""
    health = request_succeeded(health, rules, now)
    return health if health.ejected_until is not None else replace(health, broken=0)


def request_failed(health: Health, failure: Failure, rules: Rules, now: float, *, spare: bool) -> Health:
    """Return the health after a failed request. spare: whether every pool of the worker has another worker. If not, the
    worker is spared: suspect instead of ejected, until another one is there. A failure changes nothing if the worker is
    ejected already or takes no requests any more."""
    state = health.state(rules, now)
    if state not in TAKES_REQUESTS or state is WorkerState.EJECTED:
        return health
    health = _count(health, failure, rules)
    on_trial = state is WorkerState.HALF_OPEN
    if not on_trial and (health.consecutive_failures < rules.failures or (health.spared and not spare)):
        return health
    return _eject(health, rules, now, spared=not spare)


def _count(health: Health, failure: Failure, rules: Rules) -> Health:
    """Return the health with one failure more. Broken answers have a count of their own: see `request_completed`."""
    if failure is Failure.BROKEN:
        return replace(health, broken=health.broken + 1, last_failure=failure)
    health = replace(health, failures=health.failures + 1, last_failure=failure)
    return _count_unreachable(health, rules) if failure is Failure.CONNECT else health


def _count_unreachable(health: Health, rules: Rules) -> Health:
    """Return the health after a refused connection: suspect, and closer to down, which needs a failed probe too."""
    unreachable = health.unreachable + 1
    down = health.failed_probes > 0 and health.failed_probes + unreachable >= rules.fall
    return replace(
        health, alive=not down, unreachable=unreachable, doubt="a connection to it could not be made"
    )


def _eject(health: Health, rules: Rules, now: float, *, spared: bool) -> Health:
    """Return the health with an ejection begun. One on trial, while spared, or within `ejection_max_s` of a passed
    trial lasts twice as long as the one before. spared: as in `Health`."""
    soon = now - health.readmitted < rules.ejection_max_s or health.ejected_until is not None
    before = health.ejections if soon else 0
    length = min(rules.ejection_s * 2 ** min(before, 16), rules.ejection_max_s)  # 16: no overflow
    return replace(health, ejections=before + 1, ejected_until=now + length, spared=spared)


def is_our_limit(error: OSError) -> bool:
    """Return whether a connection failed since the gateway is out of files, ports or memory: no fault of the worker."""
    return error.errno in OUR_LIMITS
