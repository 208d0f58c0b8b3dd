"""Requests that wait for a worker with room: a queue per model. No I/O: it calls waiters.

Higher classes go first, but a class that waits gets at least one start in ten. Within a class, keys share the starts by
weight: start-time fair queueing, by what each request may cost. Within a key, first come, first served. Where workers
serve several models, as with two names for the same weights, all this holds over their queues: one class of several
queues takes turns."""

from collections import OrderedDict
from collections.abc import Collection
from heapq import heappop, heappush
from typing import Final, Protocol

from gateway.config.api_keys import ApiKey, Priority

PASSED_OVER: Final = 9  # starts of higher classes, after which it is the turn of a class that waits
LATE_PASSED_OVER: Final = 3  # the same for a class whose next request has waited for long
KEPT: Final = 10  # one place of a queue in so many is kept for each class
MANY: Final = 4  # places of a queue from which on one is kept for each class


class Waiter(Protocol):
    """A request in the queue, as the queue sees it; `ProxyHandler` is one."""

    @property
    def key(self) -> ApiKey:
        """Whose it is."""

    @property
    def priority(self) -> Priority:
        """Its class, which does not change while it waits."""

    @property
    def cost(self) -> float:
        """What it may cost, above 0, in the same measure as the others."""

    @property
    def waits_since(self) -> float | None:
        """Since when it waits, in seconds of a clock that does not go back; None once it is out of the queue."""

    def has_room(self) -> bool:
        """Return whether a worker of its model takes one more request of its class."""

    def is_late(self) -> bool:
        """Return whether it has waited for much of the time that it may."""

    def send_now(self) -> None:
        """Send the request to a worker, within this call. Called once it is out of the queue. Must not raise."""

    def give_way(self) -> None:
        """Refuse the request: the queue is full, and another takes its place in it. Must not raise."""


class Flow:
    """The waiting requests of one key in one class. start: the virtual time at which the first of them may start, or
    would; listed: the one under which `ClassQueue` lists it, or -1."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        self.weight = 1
        self.start = 0.0
        self.listed = -1.0

    def demand(self, more: int = 0) -> float:
        """Return how many requests wait, or would with so many more, for the weight of the key."""
        return (len(self.waiting) + more) / self.weight


class ClassQueue:
    """The waiting requests of one class, in the order in which keys share fairly. passed_over: starts of higher classes
    since its own last one, while it could have had one; rank: of the class, 0 is the highest; last_start: the number of
    its last start, or of the one before it began."""

    def __init__(self, rank: int, last_start: int) -> None:
        self.rank = rank
        self.last_start = last_start
        self.length = 0
        self.passed_over = 0
        self._flows: dict[str, Flow] = {}  # by the key's name
        self._order: list[tuple[float, int, Flow]] = []  # a heap: start, running number
        self._number = 0
        self._now = 0.0  # virtual: the start of the request that was sent last

    def add(self, waiter: Waiter) -> None:
        """Append a request to those of its key, which gets no credit for the time in which it had none."""
        flow = self._flows.setdefault(waiter.key.name, Flow())
        flow.weight = waiter.key.weight
        if not flow.waiting:
            flow.start = max(self._now, flow.start)
            self._list(flow)
        flow.waiting[waiter] = None
        self.length += 1

    def first(self) -> Waiter | None:
        """Return the request that is to be sent next, or None."""
        flow = self._next_flow()
        return None if flow is None else next(iter(flow.waiting))

    def take(self) -> Waiter | None:
        """Remove and return the request that is to be sent next, and charge its key for it."""
        flow = self._next_flow()
        if flow is None:
            return None
        waiter, _ = flow.waiting.popitem(last=False)
        self.length -= 1
        self._now = flow.start
        flow.start += waiter.cost / flow.weight
        if flow.waiting:
            self._list(flow)
        return waiter

    def remove(self, waiter: Waiter) -> bool:
        """Remove a request that will not be sent, for which its key is not charged. Return False if it is not here."""
        flow = self._flows.get(waiter.key.name)
        if flow is None or waiter not in flow.waiting:
            return False
        del flow.waiting[waiter]
        self.length -= 1
        return True

    def newest_of_greediest(self) -> Waiter | None:
        """Return the newest request of the key that has most of them waiting for its weight; None if none waits."""
        flow = max(self._flows.values(), key=Flow.demand, default=None)
        return next(reversed(flow.waiting)) if flow is not None and flow.waiting else None

    def demand_of(self, key: ApiKey, more: int = 0) -> float:
        """Return how many requests of a key wait, or would with so many more, for its weight."""
        flow = self._flows.get(key.name)
        return more / key.weight if flow is None else flow.demand(more)

    def oldest(self) -> Waiter | None:
        """Return the request that has waited longest, for the metrics."""
        heads = [next(iter(flow.waiting)) for flow in self._flows.values() if flow.waiting]
        return min(heads, key=lambda head: head.waits_since or 0.0, default=None)

    def order(self) -> tuple[int, int]:
        """Return by what it is ordered among those that have room: a higher class, then who had no start for longer."""
        return self.rank, self.last_start

    def is_due(self) -> bool:
        """Return whether it is the turn of this class though a higher one waits."""
        if self.passed_over >= PASSED_OVER:
            return True
        first = self.first() if self.passed_over >= LATE_PASSED_OVER else None
        return first is not None and first.is_late()

    def _list(self, flow: Flow) -> None:
        """Put a flow among those that have requests, if it is not there under its present start."""
        if flow.listed != flow.start:
            self._number += 1
            flow.listed = flow.start
            heappush(self._order, (flow.start, self._number, flow))

    def _next_flow(self) -> Flow | None:
        """Return the flow with the lowest start, without what is outdated in the heap; None if no request waits."""
        while self._order:
            start, _, flow = self._order[0]
            if flow.waiting and flow.start == start:
                return flow
            heappop(self._order)
            if flow.listed == start:
                flow.listed = -1.0
        return None


class Queue:
    """The queue of one model: one per class, the highest first. starts: how many requests were sent before it began."""

    def __init__(self, starts: int) -> None:
        self.classes = [ClassQueue(priority.value, starts) for priority in Priority]

    @property
    def length(self) -> int:
        return sum([one.length for one in self.classes])

    def add(self, waiter: Waiter) -> None:
        self.classes[waiter.priority.value].add(waiter)

    def remove(self, waiter: Waiter) -> bool:
        return self.classes[waiter.priority.value].remove(waiter)

    def able(self) -> list[ClassQueue]:
        """Return those of which the next request has room. Where a class has no room, no lower one has."""
        able: list[ClassQueue] = []
        for one in self.classes:
            first = one.first()
            if first is not None:
                if not first.has_room():
                    break
                able.append(one)
        return able

    def loser_to(self, waiter: Waiter, most: int) -> Waiter | None:
        """Return the request that leaves a full queue for a better one, or None. most: of requests in it. It is one of
        a lower class; or of any class, if the better one's has less than what is kept for each class; or of the same
        class, if its key has more requests waiting for its weight than the better one's key would have."""
        kept = -(-most // KEPT) if most >= MANY else 0
        own = self.classes[waiter.priority.value]
        for one in reversed(self.classes):
            if one is own:
                if own.length >= kept:
                    break
            elif one.length > kept:
                return one.newest_of_greediest()
        newest = own.newest_of_greediest()
        if newest is None or own.demand_of(newest.key) <= own.demand_of(waiter.key, 1):
            return None
        return newest


class Queues:
    """The queues of all models. One per process. A model has an entry only while a request waits for it."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self._starts = 0  # so far

    def length(self, model: str, priority: Priority) -> int:
        """Return how many requests of a class wait for a worker of `model`, for the metrics."""
        queue = self._queues.get(model)
        return 0 if queue is None else queue.classes[priority.value].length

    def waits_since(self, model: str, priority: Priority) -> float | None:
        """Return since when the first request of a class for `model` waits, or None if none does, for the metrics."""
        queue = self._queues.get(model)
        oldest = None if queue is None else queue.classes[priority.value].oldest()
        return None if oldest is None else oldest.waits_since

    def enter(self, model: str, waiter: Waiter, most: int) -> bool:
        """Append `waiter` to the queue of `model`. Return False if that already holds `most` requests, of which none
        has to give way to this one."""
        queue = self._queues.get(model)
        loser = None
        if queue is not None and queue.length >= most:
            loser = queue.loser_to(waiter, most)
        if most == 0 or (queue is not None and queue.length >= most and loser is None):
            return False
        if queue is None:
            queue = self._queues[model] = Queue(self._starts)
        if loser is not None:
            queue.remove(loser)
        queue.add(waiter)
        if loser is not None:
            loser.give_way()
        return True

    def leave(self, model: str, waiter: Waiter) -> None:
        """Remove `waiter` from the queue of `model`, unless `clear` has: its request has ended while it waited."""
        queue = self._queues.get(model)
        if queue is not None and queue.remove(waiter):
            self._forget_if_empty(model, queue)

    def serve(self, models: Collection[str]) -> None:
        """Send queued requests for `models` for as long as their workers have room. Called whenever there may be room:
        a request has ended, a worker's state has changed, or a quarter of a second has passed."""
        if not self._queues:
            return
        queues = {model: self._queues[model] for model in models if model in self._queues}
        while (waiter := self._take(queues.values())) is not None:
            waiter.send_now()
        for model, queue in queues.items():
            self._forget_if_empty(model, queue)

    def _take(self, queues: Collection[Queue]) -> Waiter | None:
        """Remove and return the next request for which there is room; None if there is none. That is one of the highest
        class that waits, unless it is the turn of a lower one."""
        able = [one for queue in queues for one in queue.able()]
        if not able:
            return None
        if len(queues) > 1:
            able.sort(key=ClassQueue.order)
        at = max([at for at, one in enumerate(able) if at == 0 or one.is_due()])
        chosen = able[at]
        self._starts += 1
        chosen.last_start, chosen.passed_over = self._starts, 0
        for lower in able[at + 1 :]:
            lower.passed_over += lower.rank > chosen.rank
        return chosen.take()

    def clear(self) -> None:
        """Forget all queued requests at the end of the drain, or each request that ends would let one of them be sent.
        `Listener.end_all` ends them."""
        self._queues.clear()

    def _forget_if_empty(self, model: str, queue: Queue) -> None:
        """Drop the queue of `model` if it is empty, so that `serve`, which every request calls, finds nothing to do."""
        if not queue.length and self._queues.get(model) is queue:
            del self._queues[model]
