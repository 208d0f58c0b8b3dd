"""HTTP requests to a source, the SDK's included: failed ones are repeated as `retries` says."""
# ruff: noqa: ANN401 - the signature is that of requests

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import urllib3

from model_cache.sources import proxies
from model_cache.sources.connections import Adapter
from model_cache.sources.rate_limit import RateLimit
from model_cache.sources.retries import Failure, GiveUp, NoRetry, Step, Wait, next_step, parse_retry_after

_CONNECT_S, _SILENCE_S = 10.0, 60.0  # to connect; between two reads


class RefusedError(Exception):
    """A request failed, and retries ran out. *status*: of the last answer, None without one."""

    def __init__(self, status: int | None, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class HttpOptions:
    """How a source is reached. *most_s*: the total that a request may wait between tries; *ca_file*: a CA beside the
    usual ones; *on_retry* gets a line before each wait; *uses_proxy*: by the environment, or never; *sleep* waits."""

    most_s: float
    on_retry: Callable[[str], None]
    ca_file: Path | None = None
    uses_proxy: bool = True
    sleep: Callable[[float], None] = time.sleep


class Session(requests.Session):
    """Requests to the source called *name*. *rate_limit* counts what arrives, without the time of failures and waits;
    the source replaces it before each listing and download, which differ in it."""

    def __init__(self, name: str, options: HttpOptions, rate_limit: RateLimit) -> None:
        super().__init__()
        self.rate_limit = rate_limit
        self._name = name
        self._options = options
        self._has_answered = False
        self._has_given_up = False
        self.trust_env = options.uses_proxy  # False: requests takes no proxy from the environment
        for scheme in ("http://", "https://"):
            self.mount(scheme, Adapter(self._count_arrived, options.ca_file))

    def _count_arrived(self, count: int) -> None:
        """Count bytes for `Adapter` by the current limit, in the reading thread; what it raises ends the transfer."""
        self.rate_limit.count_arrived(count)

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, also for `get`, with retries; a final error, as 404, is returned. Raises RefusedError."""
        kwargs["timeout"] = _bounded(kwargs.get("timeout"))  # `HttpMirror` gives none
        waited_s = 0.0
        for tried in itertools.count(1):
            began = self.rate_limit.now()
            outcome = self._try_once(method, url, *args, **kwargs)
            if outcome.failure is None:
                self._has_answered = True
                return outcome.final_answer
            step = self._step(outcome.failure, tried, waited_s)
            if isinstance(step, NoRetry):
                return outcome.final_answer
            outcome.close()
            if isinstance(step, GiveUp):
                self._has_given_up = True
                raise RefusedError(outcome.failure.status, f"{outcome.problem} {step.why}")
            self._say(outcome.problem, step)
            self._options.sleep(step.seconds)
            self.rate_limit.leave_out(began)
            waited_s += step.seconds
        raise AssertionError("unreachable")  # for mypy: count() does not end

    def _try_once(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> "_Outcome":
        """Send the request once. An answer from 400 on is a failure too; its text says what went wrong."""
        try:
            answer = super().request(method, url, *args, **kwargs)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            # ValueError: a redirect to something that is no address
            return _Outcome(None, Failure(), proxies.problem(error, str(url)))
        if answer.status_code < 400:
            return _Outcome(answer, None)
        told = parse_retry_after(answer.headers.get("Retry-After"), datetime.now(UTC))
        proxy = f" through the proxy {found}" if self.trust_env and (found := proxies.shown(str(url))) else ""
        return _Outcome(
            answer, Failure(answer.status_code, told), f"the answer is {answer.status_code}{proxy}"
        )

    def _step(self, failure: Failure, tried: int, waited_s: float) -> Step:
        """Return what to do about a failure. Once one request was given up, the others are not retried either: each
        thread would wait as long for the same source. But a 404 is about one file, and is returned as it is."""
        if self._has_given_up and failure.status != requests.codes.not_found:
            return GiveUp("again")
        if failure.status == requests.codes.proxy_authentication_required:
            return GiveUp("(it wants a user and a password, or others)")
        most_s, has_answered = self._options.most_s, self._has_answered
        return next_step(failure, tried=tried, waited_s=waited_s, most_s=most_s, has_answered=has_answered)

    def _say(self, problem: str, step: Wait) -> None:
        """Tell of the failure and of the wait that follows; `Job` counts a retry by it and writes the line."""
        self._options.on_retry(
            f"{self._name}: {problem}: asking again in {step.seconds:.0f} s, for {self._options.most_s:.0f} s at most"
        )


@dataclass(frozen=True)
class _Outcome:
    """How one try ended: with an answer, or with a failure (*problem* says why), which may have one too."""

    answer: requests.Response | None
    failure: Failure | None
    problem: str = ""

    @property
    def final_answer(self) -> requests.Response:
        """The answer, which is there after a success and for `NoRetry`: a failure without one may always be retried."""
        assert self.answer is not None
        return self.answer

    def close(self) -> None:
        """Drop the answer, if there is one, before the request is repeated: its body stays unread."""
        if self.answer is not None:
            self.answer.close()


def chunks(answer: requests.Response, size: int) -> Iterator[bytes]:
    """Yield the body as it arrives, up to *size* bytes at a time. Raises requests.ConnectionError if it breaks off."""
    try:
        while data := answer.raw.read1(size, decode_content=True):
            yield data
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise requests.ConnectionError(proxies.cause(error)) from error


def _bounded(timeout: Any) -> tuple[float, float]:
    """Return the seconds that the SDK gives (none, one number or a pair), to connect and to read, at most ours."""
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return min(connect or _CONNECT_S, _CONNECT_S), min(read or _SILENCE_S, _SILENCE_S)
