"""What the gateway asks of others on the control side: DNS, a worker's health and names, a weights job's progress.

The only user of httpx; none of it lies between a client and a worker's bytes.
"""

import asyncio
import socket
from collections.abc import Mapping

import httpx

from gateway.cards import Card
from gateway.fleet import Address
from gateway.workers import Worker

WORKER_PORT = 8000
WEIGHTS_PORT = 8002


class ProbeFailed(Exception):
    """A probe did not pass; the message says why, in words for a log line."""


class Probes:
    """Short questions with a deadline. Close it at the end."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(timeout=timeout_s, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def resolve(self, name: str, port: int) -> list[Address]:
        """The addresses behind a DNS name; none if it does not resolve in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await loop.getaddrinfo(name, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError):
            return []
        return [(str(address[0]), port) for *_, address in found]

    async def worker(self, worker: Worker, card: Card) -> None:
        """Passes if the worker is healthy and serves every name of its card. Raises ProbeFailed saying why not."""
        await self._get(worker.url + "/health")
        check_names(await self._get(worker.url + "/v1/models"), card)

    async def passes(self, worker: Worker, card: Card) -> bool:
        """Whether `worker` would pass."""
        try:
            await self.worker(worker, card)
        except ProbeFailed:
            return False
        return True

    async def weights(self, slug: str) -> Mapping[str, object] | None:
        """The progress report of `slug`'s weights job, an empty one if it runs but says nothing yet, or None."""
        for host, port in await self.resolve(f"{slug}-weights", WEIGHTS_PORT):
            try:
                report = (await self._get(f"http://{host}:{port}/progress")).json()
            except (ProbeFailed, ValueError):
                return {}
            return report if isinstance(report, dict) else {}
        return None

    async def _get(self, url: str) -> httpx.Response:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.get(url)
        except (httpx.HTTPError, TimeoutError) as error:
            raise ProbeFailed(f"{type(error).__name__} at {url}") from error
        if response.status_code != 200:
            raise ProbeFailed(f"{url} answered {response.status_code}")
        return response


def check_names(response: httpx.Response, card: Card) -> None:
    """Raises ProbeFailed unless a worker's `/v1/models` lists every name of its card."""
    try:
        served = {str(entry["id"]) for entry in response.json()["data"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeFailed(f"{response.url} is not a list of models") from error
    missing = [name for name in card.names if name not in served]
    if missing:
        raise ProbeFailed(
            f"serves {', '.join(sorted(served))} but its card says {', '.join(missing)}; check docker/{card.slug}"
        )
