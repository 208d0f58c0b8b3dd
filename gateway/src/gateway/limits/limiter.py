"""Holds API keys to their limits: a request reserves what it may need when it comes, and settles for what it has used.

What counts in which window is decided by when the request came. Reservations of all processes are in one table, so the
limits hold for the gateway as a whole. A refused request counts for nothing."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateway.api.errors import Overloaded, QuotaExceeded, RateLimited
from gateway.config.api_keys import UNLIMITED, ApiKey, Limits
from gateway.limits.calendar import Calendar, begin_of
from gateway.limits.estimates import Cost, Used
from gateway.limits.table import Row, Table
from gateway.limits.window import Window

REQUESTS, TOKENS = "requests", "tokens"  # OpenAI's `type` of an error
RPM, TPM_IN, TPM_OUT, CONCURRENCY, MONTHLY = "rpm", "tpm_in", "tpm_out", "concurrency", "monthly_tokens"
TRY_AGAIN_MS: Final = 1000  # where nobody knows when there will be room: other requests have to end


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
            raise self._refused_by_window(row, key, limits, cost, now_ms)
        if limits.concurrency is not None and row.in_flight() >= limits.concurrency:
            raise self._refused(
                key, CONCURRENCY, REQUESTS, TRY_AGAIN_MS,
                f"has {row.in_flight()} of its {limits.concurrency} requests at a time: try again when one ends",
            )  # fmt: skip
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
        if used + wanted > most:
            self.refusals[key.label, MONTHLY] += 1
            until = f"{begin_of(month + 1):%Y-%m-%d}"
            raise QuotaExceeded(
                f"API key {key.name!r} has used {used:,} of its {most:,} tokens this month (monthly_tokens), and this "
                f"request may need {wanted:,}: ask for fewer (max_tokens), ask the operator, or wait until {until} UTC"
            )
        reserved = row.month_reserved()
        if used + reserved + wanted > most:
            raise self._refused(
                key, MONTHLY, TOKENS, TRY_AGAIN_MS,
                f"has used {used:,} of its {most:,} tokens this month (monthly_tokens), its requests in flight may "
                f"need {reserved:,} and this one {wanted:,}: try again when they have ended",
            )  # fmt: skip
        return wanted

    def _refused_by_window(
        self, row: Row, key: ApiKey, limits: Limits, cost: Cost, now_ms: int
    ) -> RateLimited:
        """Return the error of that limit, of those a minute, for which the request would have to wait the longest."""
        longest, found = -1, (RPM, REQUESTS, "")
        since = now_ms % self._slot_ms  # the beginning of the present slot
        for limit, kind, window, wanted, most, noun in (
            (RPM, REQUESTS, row.requests, cost.requests, limits.rpm, "requests"),
            (TPM_IN, TOKENS, row.tokens_in, cost.tokens_in, limits.tpm_in, "prompt tokens"),
            (TPM_OUT, TOKENS, row.tokens_out, cost.tokens_out, limits.tpm_out, "completion tokens"),
        ):
            if most is None:
                continue
            slots = window.wait(wanted, most)
            if slots > longest:
                used = window.advance(0, most)
                need = "" if limit == RPM else f", and this request may need {wanted:,}"
                longest, found = (
                    slots,
                    (limit, kind, f"has used {used:,} of its {most:,} {noun} a minute{need}"),
                )
        retry_ms = longest * self._slot_ms - since
        limit, kind, told = found
        advice = f"({limit}): try again in {-(-retry_ms // 1000)} s"
        return self._refused(
            key, limit, kind, retry_ms, f"{told} {advice}", self._lines_now(row, limits, since)
        )

    def _refused(
        self, key: ApiKey, limit: str, kind: str, retry_ms: int, told: str, lines: bytes = b""
    ) -> RateLimited:
        """Count a refusal, and return its error. told: what comes behind the key's name in its message."""
        self.refusals[key.label, limit] += 1
        return RateLimited(f"API key {key.name!r} {told}", kind=kind, retry_ms=retry_ms, limits=lines)

    def _lines_now(self, row: Row, limits: Limits, since: int) -> bytes:
        """Return the header lines for a request that was refused, whose windows have been advanced. since: milliseconds
        of the present slot that are over."""
        used = [
            0 if most is None else window.advance(0, most)
            for window, most in (
                (row.requests, limits.rpm),
                (row.tokens_in, limits.tpm_in),
                (row.tokens_out, limits.tpm_out),
            )
        ]
        tokens = row.tokens_out if is_scarcer_out(limits, used[1], used[2]) else row.tokens_in
        resets = [self._whole_in(window, since) for window in (row.requests, tokens)]
        return limit_lines(limits, used[0], used[1], used[2], resets[0], resets[1])

    def _whole_in(self, window: Window, since: int) -> bytes:
        return duration(max(0, window.whole_in() * self._slot_ms - since))

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
            except (
                Overloaded
            ):  # names of a month beyond what the table holds, most of which are no keys any more
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


def is_scarcer_out(limits: Limits, used_in: int, used_out: int) -> bool:
    """Return whether the headers of tokens tell of completion tokens: they are what the key has less of, by share."""
    if limits.tpm_in is None or limits.tpm_out is None:
        return limits.tpm_out is not None
    return used_out * limits.tpm_in > used_in * limits.tpm_out


def limit_lines(
    limits: Limits, requests: int, tokens_in: int, tokens_out: int, reset: bytes, reset_tokens: bytes
) -> bytes:
    """Return OpenAI's header lines for what is used of the limits a minute; none for a key without such. OpenAI has one
    pair for tokens: that kind is told of which less is left."""
    lines = b""
    if limits.rpm is not None:
        lines = (
            b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n"
            b"x-ratelimit-reset-requests: %b\r\n" % (limits.rpm, max(0, limits.rpm - requests), reset)
        )
    most, used = limits.tpm_in, tokens_in
    if is_scarcer_out(limits, tokens_in, tokens_out):
        most, used = limits.tpm_out, tokens_out
    if most is not None:
        lines += (
            b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\n"
            b"x-ratelimit-reset-tokens: %b\r\n" % (most, max(0, most - used), reset_tokens)
        )
    return lines


def duration(milliseconds: int) -> bytes:
    """Return a time as OpenAI's headers have it: `250ms`, `1.5s`, `6m0s`."""
    if milliseconds < 1000:
        return b"%dms" % milliseconds
    seconds, rest = divmod(milliseconds, 1000)
    fraction = b"" if not rest else b".%03d" % rest
    minutes, seconds = divmod(seconds, 60)
    told = b"%d%bs" % (seconds, fraction.rstrip(b"0"))
    return b"%dm%b" % (minutes, told) if minutes else told
