"""Which worker holds a stored response: later requests that name it must go there."""

import re
from collections import OrderedDict
from typing import Final

from gateway.workers import Worker

ID: Final = re.compile(rb'"id":"(resp_[A-Za-z0-9_-]{1,128})"')
MOST: Final = 10_000  # responses; the oldest are forgotten first


class Stored:
    """The workers of the newest stored responses, by id."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._workers: OrderedDict[bytes, Worker] = OrderedDict()

    def learn(self, data: bytes, worker: Worker) -> bool:
        """Notes the id that an answer's first bytes tell; returns whether one was there."""
        found = ID.search(data)
        if found is not None:
            self._workers[found[1]] = worker
            if len(self._workers) > self._most:
                self._workers.popitem(last=False)
        return found is not None

    def worker_of(self, response: bytes) -> Worker | None:
        return self._workers.get(response)
