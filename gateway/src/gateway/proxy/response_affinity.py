"""Find the worker that holds a stored response, since requests that name the response must go there. No I/O.

Only the worker that made a response has it, in memory. This process remembers the workers of the newest responses. For
any other response (made through another process of the gateway, or before this one started) the handler asks the
workers one after another; one that does not have it answers 404 and has no other effect."""

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from gateway.api.errors import GatewayError, NoWorkerAvailable, ResponseNotFound
from gateway.fleet.health import TAKES_REQUESTS
from gateway.fleet.workers import Worker

ID: Final = re.compile(rb'"id"\s*:\s*"(resp_[A-Za-z0-9_-]{1,128})"')
Holder = tuple[Worker | None, str]  # of a response; "": the model that made it is not known
NOBODY: Final[Holder] = (None, "")
MAX_RESPONSES: Final = 10_000  # responses, in a few MB; the oldest are forgotten first, and then searched for


class ResponseAffinity:
    """Remembers which worker made each of the newest `most` stored responses, by id, and under which of its models'
    names: a key may be for one of them. One per process."""

    def __init__(self, most: int = MAX_RESPONSES) -> None:
        self._most = most
        self._holders: OrderedDict[bytes, Holder] = OrderedDict()

    def learn(self, data: bytes, worker: Worker, model: str) -> bool:
        """Look for a new response's id in `data`, a piece of `worker`'s answer for `model`; note it. Return whether it
        is there."""
        found = ID.search(data)
        if found is not None:
            self._note(found[1], (worker, model))
        return found is not None

    def note(self, response_id: bytes, worker: Worker) -> None:
        """Remember that the response was found at `worker`; which model made it is not known by that."""
        self._note(response_id, (worker, self.holder_of(response_id)[1]))

    def _note(self, response_id: bytes, holder: Holder) -> None:
        """Remember a holder; forget the oldest one if there are too many."""
        self._holders[response_id] = holder
        if len(self._holders) > self._most:
            self._holders.popitem(last=False)

    def holder_of(self, response_id: bytes) -> Holder:
        """Return the worker that has a stored response and the model that made it, as far as they are remembered. The
        worker may have left the fleet since."""
        return self._holders.get(response_id, NOBODY)


class Search:
    """The search of one request, whose handler owns it, for a stored response: names the workers to ask in turn."""

    def __init__(self, response_id: bytes, workers: Iterable[Worker]) -> None:
        self.response_id = response_id
        known = list(workers)
        self._left = [one for one in reversed(known) if one.state in TAKES_REQUESTS]  # popped from its end
        self._failure: GatewayError | None = None  # why a worker could not be asked
        if known and not self._left:  # one of them may have it, so it cannot be said that none has
            self._failure = NoWorkerAvailable(f"No worker that may have the response {self.name} answers")

    @property
    def name(self) -> str:
        """The response's id for error messages: quoted, and cut to 100 characters, since the client wrote it."""
        return repr(self.response_id.decode("latin-1")[:100])

    @property
    def has_more(self) -> bool:
        """Whether `next` would return a worker."""
        return bool(self._left)

    def next(self) -> Worker:
        """Return the next worker to ask. If none is left, raises why one could not be asked, or ResponseNotFound."""
        if self._left:
            return self._left.pop()
        raise self._failure or ResponseNotFound(
            f"No worker has the response {self.name}. vLLM keeps responses only with "
            "VLLM_ENABLE_RESPONSES_API_STORE=1, in its memory, until it ends: set it and start the worker anew, or "
            "send the whole conversation as `input`"
        )

    def note_miss(self, why: GatewayError | None = None) -> None:
        """Note that the worker does not have the response or, because of `why`, could not be asked."""
        self._failure = self._failure or why  # for `next`: a worker that was not asked may have the response
