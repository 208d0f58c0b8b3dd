"""Whether and when a failed request is made again: one rule for every source. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_TRIES_BEFORE_FIRST_ANSWER = 3  # of a source that may not exist: then its fallback's turn comes soon
_MAX_PAUSE_S = 30.0  # between two tries, unless a Retry-After asks for more
_DENIED = (401, 403)  # final, except from a source that has answered before
_PASSING = (408, 425, 429)  # temporary


@dataclass(frozen=True)
class Failure:
    """One failed request: its *status*, None without an answer, and the seconds that its Retry-After asks for."""

    status: int | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Wait:
    """Ask again after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class GiveUp:
    """Ask no more, although it might pass; *why* goes on after what failed: "3 times"."""

    why: str


class NoRetry:
    """The answer is final, however often one asks: the caller gets it."""


Step = Wait | GiveUp | NoRetry


def next_step(failure: Failure, *, tried: int, waited_s: float, most_s: float, has_answered: bool) -> Step:
    """Return what to do about a request that has failed for the *tried*-th time, after *waited_s* of *most_s* seconds
    of waiting. *has_answered*: whether this source has answered successfully before: then a 401 or 403 is taken to be
    temporary, as hubs and networks send them under load; else it is final. Retry-After counts if above the pause."""
    if not _may_pass(failure.status, has_answered=has_answered):
        return NoRetry()
    pause_s = min(2.0 ** min(tried - 1, 10), _MAX_PAUSE_S)  # 1, 2, 4 ...; the 10 bounds the power
    is_told = failure.retry_after_s is not None and failure.retry_after_s > pause_s
    if not is_told and not has_answered and tried >= _TRIES_BEFORE_FIRST_ANSWER:
        return GiveUp(f"{tried} times")
    pause_s = max(pause_s, failure.retry_after_s or 0.0)
    if waited_s + pause_s <= most_s:
        return Wait(pause_s)
    told = f"and asks for {pause_s:.0f} s more" if is_told else "still"
    return GiveUp(f"{told}, after {waited_s:.0f} s of waiting: MODEL_CACHE_RETRY_S is {most_s:.0f}")


def _may_pass(status: int | None, *, has_answered: bool) -> bool:
    """Return whether the failure may be temporary; it is without an answer (None), and at errors of the server."""
    return status is None or status >= 500 or status in _PASSING or (has_answered and status in _DENIED)


def parse_retry_after(retry_after: str | None, now: datetime) -> float | None:
    """Return the seconds from *now* that a Retry-After gives, as a number (nine digits) or a date; else None."""
    text = (retry_after or "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)  # the zone -0000 gives none
    return max(0.0, (until - now).total_seconds())
