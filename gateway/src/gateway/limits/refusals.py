"""Why a key's limit refuses a request, as the error that its client gets. Pure: it is told what was used, by the table
of this gateway or by the Redis of several."""

from collections.abc import Sequence
from typing import Final

from gateway.api.errors import GatewayError, QuotaExceeded, RateLimited
from gateway.config.api_keys import ApiKey, Limits
from gateway.limits.calendar import begin_of
from gateway.limits.estimates import Cost

REQUESTS, TOKENS = "requests", "tokens"  # OpenAI's `type` of an error
RPM, TPM_IN, TPM_OUT, CONCURRENCY, MONTHLY = "rpm", "tpm_in", "tpm_out", "concurrency", "monthly_tokens"
WINDOWS: Final = (
    (RPM, REQUESTS, "requests"),
    (TPM_IN, TOKENS, "prompt tokens"),
    (TPM_OUT, TOKENS, "completion tokens"),
)
TRY_AGAIN_MS: Final = 1000  # where nobody knows when there will be room: other requests have to end
Refusal = tuple[str, GatewayError]  # which limit, and the error


class Seen:
    """A window as a request found it. used: in the last minute, debts included; wait_ms: until a refused request would
    fit; whole_ms: until nothing is counted, if nothing more is used."""

    def __init__(self, used: int = 0, wait_ms: int = 0, whole_ms: int = 0) -> None:
        self.used = used
        self.wait_ms = wait_ms
        self.whole_ms = whole_ms


def by_window(key: ApiKey, cost: Cost, seen: Sequence[Seen]) -> Refusal:
    """Return that limit a minute for which the request would have to wait the longest, and its error. seen: the windows
    in the order of WINDOWS; of a limit that the key does not have, an unused one."""
    limits = key.limits
    mosts = (limits.rpm, limits.tpm_in, limits.tpm_out)
    wanted = (cost.requests, cost.tokens_in, cost.tokens_out)
    at = max((one for one in range(3) if mosts[one] is not None), key=lambda one: seen[one].wait_ms)
    limit, kind, noun = WINDOWS[at]
    need = "" if limit == RPM else f", and this request may need {wanted[at]:,}"
    retry_ms = seen[at].wait_ms
    told = (
        f"API key {key.name!r} has used {seen[at].used:,} of its {mosts[at]:,} {noun} a minute{need} ({limit}): try "
        f"again in {-(-retry_ms // 1000)} s"
    )
    return limit, RateLimited(told, kind=kind, retry_ms=retry_ms, limits=lines_of(limits, seen))


def by_concurrency(key: ApiKey, in_flight: int) -> Refusal:
    """Return the limit and the error of a request that came while as many ran as its key may have at a time."""
    told = f"has {in_flight} of its {key.limits.concurrency} requests at a time: try again when one ends"
    return CONCURRENCY, RateLimited(f"API key {key.name!r} {told}", kind=REQUESTS, retry_ms=TRY_AGAIN_MS)


def by_month(key: ApiKey, cost: Cost, used: int, reserved: int, month: int) -> Refusal:
    """Return the limit and the error of a request whose tokens are not left in the month, or are left but reserved by
    requests in flight, which may not need them."""
    most, wanted = key.limits.monthly_tokens or 0, cost.tokens_in + cost.tokens_out
    told = f"API key {key.name!r} has used {used:,} of its {most:,} tokens this month (monthly_tokens)"
    if used + wanted <= most:
        flying = f", its requests in flight may need {reserved:,} and this one {wanted:,}"
        return MONTHLY, RateLimited(
            f"{told}{flying}: try again when they have ended", kind=TOKENS, retry_ms=TRY_AGAIN_MS
        )
    until = f"{begin_of(month + 1):%Y-%m-%d}"
    return MONTHLY, QuotaExceeded(
        f"{told}, and this request may need {wanted:,}: ask for fewer (max_tokens), ask the operator, or wait until "
        f"{until} UTC"
    )


def lines_of(limits: Limits, seen: Sequence[Seen]) -> bytes:
    """Return the header lines that tell what is used of the limits a minute."""
    tokens = seen[2] if is_scarcer_out(limits, seen[1].used, seen[2].used) else seen[1]
    return limit_lines(
        limits,
        seen[0].used,
        seen[1].used,
        seen[2].used,
        duration(seen[0].whole_ms),
        duration(tokens.whole_ms),
    )


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
