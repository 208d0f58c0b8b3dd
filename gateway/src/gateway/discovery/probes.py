"""The questions that the background loop asks: DNS, a worker's health, names and metrics, a weights job's progress."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import orjson

from gateway.config.catalog import Card
from gateway.discovery.probe_client import ProbeConnection, Response, ResponseError, connect
from gateway.fleet.engine_metrics import EngineMetrics, read_metrics
from gateway.fleet.fleet import Address
from gateway.fleet.health import is_our_limit
from gateway.fleet.workers import Served, Worker

WORKER_PORT = 8000  # these are as docker/ sets them
WEIGHTS_PORT = 8002
LAUNCHER_PORT = 8003


class ProbeFailed(Exception):
    """A probe did not pass; the message says why, in words for a log line. certain: the connection was refused or the
    worker says it is not well. A timeout alone is not certain."""

    def __init__(self, message: str, *, certain: bool = False) -> None:
        super().__init__(message)
        self.certain = certain


class NamesDiffer(ProbeFailed):
    """The worker is healthy but serves other names than its card."""


class OwnLimit(Exception):
    """The gateway is out of files, ports or memory, so the probe says nothing of the worker."""


class Probes:
    """Short questions, each with a deadline of `timeout_s`. One per process; `DiscoveryLoop` asks them."""

    def __init__(
        self, timeout_s: float, worker_port: int = WORKER_PORT, launcher_port: int = LAUNCHER_PORT
    ) -> None:
        """worker_port: of workers that have a launcher beside them. Tests set the ports."""
        self._timeout_s = timeout_s
        self._worker_port = worker_port
        self._launcher_port = launcher_port

    async def resolve(self, name: str, port: int) -> list[Address]:
        """Return the IPv4 addresses of a DNS name; none if it does not resolve in time, which counts as not running."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await loop.getaddrinfo(name, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError):
            return []
        return [(str(address[0]), port) for *_, address in found]

    async def worker(self, worker: Worker, card: Card) -> EngineMetrics | None:
        """Check that the worker is healthy and serves the names of its card; note in `worker.served` what it says of
        its models. Return its engine metrics, None if it gives none. Raises ProbeFailed or OwnLimit."""
        async with self._asking(worker.host, worker.port) as connection:
            await get(connection, "/health")
            worker.served = read_models((await get(connection, "/v1/models")).body)
            check_names(worker.served, card)
            return await self._metrics(connection)

    async def _metrics(self, connection: ProbeConnection) -> EngineMetrics | None:
        """Return the engine metrics; None if that fails or takes half the deadline: a worker can serve without them."""
        with suppress(ProbeFailed, ResponseError, OSError, TimeoutError):
            async with asyncio.timeout(self._timeout_s / 2):
                return read_metrics((await get(connection, "/metrics")).body)
        return None

    async def passes(self, worker: Worker, card: Card) -> bool:
        """Return whether `worker`, which DNS no longer names, passes its probe now; False if it could not be asked."""
        try:
            await self.worker(worker, card)
        except (ProbeFailed, OwnLimit):
            return False
        return True

    async def weights(self, slug: str) -> Mapping[str, object] | None:
        """Return what `slug`'s weights job reports, at its first address: {} without an answer, None without a job."""
        for address in await self.resolve(f"{slug}-weights", WEIGHTS_PORT):
            return await self._report(address, "/progress")
        return None

    async def launcher(self, worker: Worker) -> Mapping[str, object] | None:
        """Return what the launcher beside a worker reports of its start, to explain a failed probe; None if nothing."""
        if worker.port != self._worker_port:  # it was started by other means, without a launcher
            return None
        return await self._report((worker.host, self._launcher_port), "/state") or None

    async def _report(self, address: Address, target: str) -> Mapping[str, object]:
        """Fetch a JSON object; return an empty one whatever fails: reports only make error messages say more."""
        try:
            async with self._asking(*address) as source:
                report = orjson.loads((await get(source, target)).body)
        except (ProbeFailed, OwnLimit, ValueError):
            return {}
        return report if isinstance(report, dict) else {}

    @asynccontextmanager
    async def _asking(self, host: str, port: int) -> AsyncIterator[ProbeConnection]:
        """Open a connection with one deadline for all its requests. Raises ProbeFailed or OwnLimit when it fails."""
        try:
            async with asyncio.timeout(self._timeout_s), connect(host, port) as connection:
                yield connection
        except TimeoutError as error:
            raise ProbeFailed(f"no answer of {host}:{port} within {self._timeout_s:g} s") from error
        except OSError as error:
            if is_our_limit(error):
                raise OwnLimit(str(error)) from error
            raise ProbeFailed(f"{host}:{port}: {error.strerror or error}", certain=True) from error
        except ResponseError as error:
            raise ProbeFailed(f"{host}:{port}: {error}") from error


async def get(connection: ProbeConnection, target: str) -> Response:
    """Fetch a page that must have status 200. Otherwise raise ProbeFailed, a certain one: the worker itself says so."""
    page = await connection.get(target)
    if page.status != 200:
        raise ProbeFailed(f"{target} answered {page.status}", certain=True)
    return page


def read_models(body: bytes) -> dict[str, Served]:
    """Parse a worker's /v1/models: what it serves, by name. Raises ProbeFailed if it is not a list of models."""
    try:
        return {str(entry["id"]): served_of(entry) for entry in orjson.loads(body)["data"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProbeFailed("/v1/models is not a list of models") from error


def served_of(entry: Mapping[str, object]) -> Served:
    """Parse one entry of /v1/models. Fields of another type than vLLM's are treated as absent."""
    root, parent, length = (entry.get(name) for name in ("root", "parent", "max_model_len"))
    return Served(
        root if isinstance(root, str) else None,
        parent if isinstance(parent, str) else None,
        length if isinstance(length, int) and not isinstance(length, bool) else None,
    )


def check_names(served: Mapping[str, Served], card: Card) -> None:
    """Raise NamesDiffer unless every name of the card is served: DNS may name an address that another model has now."""
    missing = [name for name in card.names if name not in served]
    if missing:
        raise NamesDiffer(
            f"serves {', '.join(sorted(served)) or 'nothing'} but its card says {', '.join(missing)}; "
            f"check docker/{card.slug}"
        )
