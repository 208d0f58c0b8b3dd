"""Which worker holds a stored response: later requests that name it must go there.

A response is in the memory of the worker that has made it, and of no other. Who made the newest ones is remembered; for
any other (made through another process of the gateway, or before this one began) the workers are asked one after
another: whoever has it not says 404 and has done nothing.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from gateway.api.errors import GatewayError, NoWorkerAvailable, ResponseNotFound
from gateway.fleet.health import TAKES_REQUESTS
from gateway.fleet.workers import Worker

ID: Final = re.compile(rb'"id"\s*:\s*"(resp_[A-Za-z0-9_-]{1,128})"')
MAX_RESPONSES: Final = 10_000  # responses; the oldest are forgotten first


class ResponseAffinity:
    """The workers of the newest stored responses, by id."""

    def __init__(self, most: int = MAX_RESPONSES) -> None:
        self._most = most
        self._workers: OrderedDict[bytes, Worker] = OrderedDict()

    def learn(self, data: bytes, worker: Worker) -> bool:
        """Notes the id that an answer's first bytes tell; returns whether one was there."""
        found = ID.search(data)
        if found is not None:
            self.note(found[1], worker)
        return found is not None

    def note(self, response: bytes, worker: Worker) -> None:
        self._workers[response] = worker
        if len(self._workers) > self._most:
            self._workers.popitem(last=False)

    def worker_of(self, response: bytes) -> Worker | None:
        return self._workers.get(response)


class Search:
    """For one response, among the workers that may have it."""

    def __init__(self, response: bytes, workers: Iterable[Worker]) -> None:
        self.response = response
        known = list(workers)
        self._left = [worker for worker in reversed(known) if worker.state in TAKES_REQUESTS]
        self._unheard: GatewayError | None = None
        if known and not self._left:
            self._unheard = NoWorkerAvailable(f"No worker that may have the response {self.name} answers")

    @property
    def name(self) -> str:
        return repr(self.response.decode("latin-1")[:100])

    @property
    def has_more(self) -> bool:
        return bool(self._left)

    def next(self) -> Worker:
        """Whom to ask now. Raises ResponseNotFound once all have been asked, or why one of them could not be."""
        if self._left:
            return self._left.pop()
        raise self._unheard or ResponseNotFound(
            f"No worker has the response {self.name}. vLLM keeps responses only with "
            "VLLM_ENABLE_RESPONSES_API_STORE=1, in its memory, until it ends: set it and start the worker anew, or "
            "send the whole conversation as `input`"
        )

    def missed(self, why: GatewayError | None = None) -> None:
        """Who was asked has it not; or could not be asked, `why`, so that it may have it all the same."""
        self._unheard = self._unheard or why
