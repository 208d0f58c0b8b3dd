"""Which failed request is made again, when, and for how long: one rule for every source. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_TRIES_OF_A_STRANGER = 3
_LONGEST_PAUSE_S = 30.0
_DENIED = (401, 403)
_PASSING = (408, 425, 429)


@dataclass(frozen=True)
class Failure:
    """Of one request. *status*: what was answered, None where nothing was; *told_s*: what its Retry-After says."""

    status: int | None = None
    told_s: float | None = None


@dataclass(frozen=True)
class Wait:
    """Ask again after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class GiveUp:
    """Ask no more, since it took long enough."""

    why: str


class Stands:
    """The answer means what it says, however often one asks."""


Step = Wait | GiveUp | Stands


def next_step(failure: Failure, *, tried: int, waited_s: float, most_s: float, is_known: bool) -> Step:
    """What to do about a request that has failed for the *tried*-th time, after *waited_s* seconds of waiting.

    *most_s*: what may be waited in all. *is_known*: whether this source has answered well before. Then a refusal is
    taken for one that passes, as hubs and the networks before them give them under load; a stranger's is the answer.
    What a Retry-After says counts where it is longer than the pause that would be made anyway.
    """
    if not _may_pass(failure.status, is_known=is_known):
        return Stands()
    pause_s = min(2.0 ** min(tried - 1, 10), _LONGEST_PAUSE_S)
    is_told = failure.told_s is not None and failure.told_s > pause_s
    if not is_told and not is_known and tried >= _TRIES_OF_A_STRANGER:
        return GiveUp(f"{tried} times")
    pause_s = max(pause_s, failure.told_s or 0.0)
    if waited_s + pause_s <= most_s:
        return Wait(pause_s)
    told = f"and asks for {pause_s:.0f} s more" if is_told else "still"
    return GiveUp(f"{told}, after {waited_s:.0f} s of waiting: MODEL_CACHE_RETRY_S is {most_s:.0f}")


def _may_pass(status: int | None, *, is_known: bool) -> bool:
    return status is None or status >= 500 or status in _PASSING or (is_known and status in _DENIED)


def told_s(retry_after: str | None, now: datetime) -> float | None:
    """The seconds that a Retry-After says, be they a number or a date; None where it says neither."""
    text = (retry_after or "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - now).total_seconds())
