"""Holds API keys to their limits: a request reserves what it may need when it comes, and settles for what it has used.

What counts in which window is decided by when the request came. Reservations of all processes are in one table, so the
limits hold for the gateway as a whole. A refused request counts for nothing."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateway.api.errors import GatewayError, Overloaded
from gateway.config.api_keys import UNLIMITED, ApiKey, Limits
from gateway.limits import refusals
from gateway.limits.calendar import Calendar
from gateway.limits.estimates import Cost, Used
from gateway.limits.refusals import (
    CONCURRENCY,
    MONTHLY,
    RPM,
    TPM_IN,
    TPM_OUT,
    Refusal,
    Seen,
    duration,
    limit_lines,
)  # fmt: skip
from gateway.limits.table import Row, Table
from gateway.limits.window import Window


class Reservation:
    """What one request holds until it is over; this one nothing, since its key has no limits. lines: header lines that
    tell the key's limits, for the answer; cost: what was reserved."""

    lines = b""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost

    def settle(self, used: Used | None) -> None:
        """Give back what was reserved and not used, and charge what was used beyond it. Called once, at the request's
        end. used: None if no worker was asked, so that the request counts for nothing."""


class Reserved(Reservation):
    """The reservation of a key with limits. slot: in which it counts; held: tokens of the month."""

    def __init__(
        self, limiter: "Limiter", key: ApiKey, cost: Cost, slot: int, held: int, lines: bytes
    ) -> None:
        super().__init__(cost)
        self.lines = lines
        self._limiter = limiter
        self._key = key
        self._slot = slot
        self._held = held
        self._is_settled = False

    def settle(self, used: Used | None) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._limiter.settle(self._key, self.cost, self._slot, self._held, used)


FREE: Final = Reservation(Cost(requests=0))  # of every request whose key has no limits


class KeyUse:
    """How much of one limit a key has used, for metrics. label: the key's in metrics; limit: which one."""

    def __init__(self, label: str, limit: str, used: int, most: int) -> None:
        self.label = label
        self.limit = limit
        self.used = used
        self.most = most


class Limiter:
    """The limits of all keys; one per process. keys: tells those that metrics name; clock: monotonic seconds, the same
    in all processes; wall: Unix seconds, which may jump. refusals: how often a key's limit has refused a request, by
    the key's label and the limit."""

    def __init__(
        self, table: Table, keys: Callable[[], Iterable[ApiKey]],
        clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._table = table
        self._keys = keys
        self._clock = clock
        self._calendar = Calendar(wall)
        self._slot_ms = table.shape.slot_ms
        self._reset = duration(table.shape.length_ms)
        self.refusals: Counter[tuple[str, str]] = Counter()

    def reserve(self, key: ApiKey, cost: Cost) -> Reservation:
        """Reserve what a request may need. Raises RateLimited, or QuotaExceeded for the month; Overloaded if there are
        too many keys. No request is refused for ever because it may need more than a minute's limit."""
        limits = key.limits
        if limits is UNLIMITED:
            return FREE
        if limits.tpm_in is not None and cost.tokens_in > limits.tpm_in:
            cost = Cost(limits.tpm_in, cost.tokens_out, cost.requests)
        if limits.tpm_out is not None and cost.tokens_out > limits.tpm_out:
            cost = Cost(cost.tokens_in, limits.tpm_out, cost.requests)
        now_ms = int(self._clock() * 1000)
        row = self._table.enter(key.name, now_ms)
        try:
            row.note_use(now_ms)
            return self._reserve(row, key, limits, cost, now_ms)
        finally:
            self._table.leave(row)

    def _reserve(self, row: Row, key: ApiKey, limits: Limits, cost: Cost, now_ms: int) -> Reservation:
        """Reserve in a locked row: all that the request needs, or nothing."""
        now = now_ms // self._slot_ms
        rpm, tpm_in, tpm_out = limits.rpm, limits.tpm_in, limits.tpm_out
        requests = tokens_in = tokens_out = 0  # used after this request
        fits = True
        if rpm is not None:
            requests = row.requests.advance(now, rpm) + cost.requests
            fits = requests <= rpm
        if tpm_in is not None:
            tokens_in = row.tokens_in.advance(now, tpm_in) + cost.tokens_in
            fits = fits and tokens_in <= tpm_in
        if tpm_out is not None:
            tokens_out = row.tokens_out.advance(now, tpm_out) + cost.tokens_out
            fits = fits and tokens_out <= tpm_out
        if not fits:
            raise self._counted(key, refusals.by_window(key, cost, self._seen(row, limits, cost, now_ms)))
        if limits.concurrency is not None and row.in_flight() >= limits.concurrency:
            raise self._counted(key, refusals.by_concurrency(key, row.in_flight()))
        held = self._hold_of_month(row, key, limits, cost)
        slot = now
        if rpm is not None:
            slot = row.requests.take(cost.requests)
        if tpm_in is not None:
            slot = row.tokens_in.take(cost.tokens_in)
        if tpm_out is not None:
            slot = row.tokens_out.take(cost.tokens_out)
        row.hold(held)
        lines = limit_lines(limits, requests, tokens_in, tokens_out, self._reset, self._reset)
        return Reserved(self, key, cost, slot, held, lines)

    def _hold_of_month(self, row: Row, key: ApiKey, limits: Limits, cost: Cost) -> int:
        """Return how many of the month's tokens the request is to hold. Raises QuotaExceeded if they are not left, or
        RateLimited if they are left but held by requests in flight, which may not need them."""
        month, wanted = self._calendar.month(), cost.tokens_in + cost.tokens_out
        used = row.month_used(month)
        most = limits.monthly_tokens
        if most is None or not wanted:
            return wanted
        reserved = row.month_reserved()
        if used + reserved + wanted > most:
            raise self._counted(key, refusals.by_month(key, cost, used, reserved, month))
        return wanted

    def _counted(self, key: ApiKey, refusal: Refusal) -> GatewayError:
        """Count a refusal, and return its error."""
        limit, error = refusal
        self.refusals[key.label, limit] += 1
        return error

    def _seen(self, row: Row, limits: Limits, cost: Cost, now_ms: int) -> list[Seen]:
        """Return the windows, which have been advanced, as a request finds them that does not fit."""
        since = now_ms % self._slot_ms  # the beginning of the present slot
        return [
            Seen() if most is None else self._window_seen(window, most, wanted, since)
            for window, most, wanted in (
                (row.requests, limits.rpm, cost.requests),
                (row.tokens_in, limits.tpm_in, cost.tokens_in),
                (row.tokens_out, limits.tpm_out, cost.tokens_out),
            )
        ]

    def _window_seen(self, window: Window, most: int, wanted: int, since: int) -> Seen:
        """Return a window as it is seen. since: milliseconds of the present slot that are over."""
        wait_ms = window.wait(wanted, most) * self._slot_ms - since
        whole_ms = max(0, window.whole_in() * self._slot_ms - since)
        return Seen(window.advance(0, most), wait_ms, whole_ms)

    def settle(self, key: ApiKey, cost: Cost, slot: int, held: int, used: Used | None) -> None:
        """Do the work of `Reserved.settle`. The limits are those of the time when the request came."""
        limits, now_ms = key.limits, int(self._clock() * 1000)
        used_in = used_out = 0
        if used is not None:
            used_in, used_out = used.tokens_in, used.tokens_out
        row = self._table.enter(key.name, now_ms)
        try:
            row.let_go(held)
            row.add_to_month(used_in + used_out)
            if used is None and limits.rpm is not None:
                row.requests.give_back(cost.requests, slot)
            now = now_ms // self._slot_ms
            if limits.tpm_in is not None:
                settle_in(row.tokens_in, now, limits.tpm_in, cost.tokens_in, used_in, slot)
            if limits.tpm_out is not None:
                settle_in(row.tokens_out, now, limits.tpm_out, cost.tokens_out, used_out, slot)
        finally:
            self._table.leave(row)

    def month(self) -> int:
        """Return the number of the month that is counted."""
        return self._calendar.month()

    def month_used(self, name: str) -> int:
        """Return how many tokens the key `name` has used in the month, in all processes."""
        row = self._table.enter(name, int(self._clock() * 1000))
        try:
            return row.month_used(self._calendar.month())
        finally:
            self._table.leave(row)

    def names(self) -> list[str]:
        """Return the names of the keys for which this process has counted anything."""
        return self._table.names()

    def seed_month(self, totals: Mapping[str, int]) -> None:
        """Let the tokens of this month be at least what the usage record has, by the key's name. Called by each process
        at the start, and when keys have changed, since a key may not have been counted before: what is counted already
        stays."""
        now_ms = int(self._clock() * 1000)
        for name, tokens in totals.items():
            try:
                row = self._table.enter(name, now_ms)
            except Overloaded:  # more names than the table holds
                return
            row.note_use(now_ms)
            row.month_used(self._calendar.month())
            row.seed_month(tokens)
            self._table.leave(row)

    def uses(self) -> list[KeyUse]:
        """Return how much of each limit the keys have used that metrics name, in all processes, at a scrape."""
        found = []
        now_ms = int(self._clock() * 1000)
        for key in self._keys():
            try:
                row = self._table.enter(key.name, now_ms)
            except Overloaded:  # all rows are other keys'
                continue
            try:
                found += self._uses_of(row, key, now_ms // self._slot_ms)
            finally:
                self._table.leave(row)
        return found

    def _uses_of(self, row: Row, key: ApiKey, now: int) -> list[KeyUse]:
        """Return how much of its limits one key has used."""
        limits, found = key.limits, []
        for limit, window, most in (
            (RPM, row.requests, limits.rpm),
            (TPM_IN, row.tokens_in, limits.tpm_in),
            (TPM_OUT, row.tokens_out, limits.tpm_out),
        ):
            if most is not None:
                found.append(KeyUse(key.label, limit, window.advance(now, most), most))
        if limits.concurrency is not None:
            found.append(KeyUse(key.label, CONCURRENCY, row.in_flight(), limits.concurrency))
        if limits.monthly_tokens is not None:
            used = row.month_used(self._calendar.month())
            found.append(KeyUse(key.label, MONTHLY, used, limits.monthly_tokens))
        return found


def settle_in(window: Window, now: int, limit: int, reserved: int, used: int, slot: int) -> None:
    """Let a window count `used` in place of what was reserved in `slot`."""
    if used == reserved:
        return
    window.advance(now, limit)
    if used < reserved:
        window.give_back(reserved - used, slot)
    else:
        window.charge(used - reserved, limit)
