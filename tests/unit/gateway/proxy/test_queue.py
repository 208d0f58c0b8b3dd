"""Requests that wait for a worker: classes in order, keys by weight, first come, first served, and none starves."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from gateway.config.api_keys import ANYONE, ApiKey, Priority
from gateway.proxy.queue import LATE_PASSED_OVER, PASSED_OVER, Queues

INTERACTIVE, NORMAL, BULK = Priority
CHAT, WORK, BATCH = ApiKey("chat", priority=INTERACTIVE), ApiKey("work"), ApiKey("batch", priority=BULK)
SEEDS = range(8)


class Asker:
    """A request in the queue. It finds room as it is told."""

    def __init__(self, *finds: bool, key: ApiKey = ANYONE, cost: float = 1.0) -> None:
        self.finds = list(finds)
        self.turns = self.refusals = 0
        self.waits_since: float | None = 5.0
        self.late = False
        self.key, self.priority, self.cost = key, key.priority, cost

    def has_room(self) -> bool:
        return self.finds.pop(0)

    def is_late(self) -> bool:
        return self.late

    def send_now(self) -> None:
        self.turns += 1

    def give_way(self) -> None:
        self.refusals += 1


class Client(Asker):
    """A request for `Worker`."""

    def __init__(self, worker: Worker, key: ApiKey, cost: float) -> None:
        super().__init__(key=key, cost=cost)
        self._worker = worker
        self.number = next(worker.numbers)

    def has_room(self) -> bool:
        return self._worker.has_room(self.priority)

    def send_now(self) -> None:
        super().send_now()
        self._worker.running.append(self)
        self._worker.started.append(self)


class Worker:
    """A worker and the queue before it. limits: places for all, for normal and bulk, for bulk."""

    def __init__(self, *limits: int, most: int = 1 << 20) -> None:
        self.limits = limits or (1, 1, 1)
        self.most = most
        self.queues = Queues()
        self.numbers = iter(range(1 << 30))
        self.running: list[Client] = []
        self.started: list[Client] = []

    def has_room(self, priority: Priority) -> bool:
        counts = [sum(one.priority >= least for one in self.running) for least in Priority]
        return all(counts[at] < self.limits[at] for at in range(priority + 1))

    def ask(self, key: ApiKey, cost: float = 1.0) -> Client:
        """A request comes, and waits if there is no place for it."""
        client = Client(self, key, cost)
        self.queues.serve(["m"])
        if self.has_room(client.priority):
            client.send_now()
        elif not self.queues.enter("m", client, self.most):
            client.give_way()
        return client

    def end(self, client: Client | None = None) -> list[Client]:
        """A request ends, the oldest if none is named. Those that got its place."""
        self.running.remove(client or self.running[0])
        before = len(self.started)
        self.queues.serve(["m"])
        return self.started[before:]

    def saturate(self, starts: int, *keys: ApiKey, each: int = 8) -> Counter[str]:
        """How many of so many starts each key gets while it always has `each` requests, the one or other running."""
        for key in keys * each:
            self.ask(key)
        before = len(self.started)
        while len(self.started) < before + starts:
            ended = self.running[0]
            self.end(ended)
            self.ask(ended.key)
        return Counter(one.key.name for one in self.started[before:])


# several models of the same workers


class Shared:
    """A worker with one place, and two models that it serves, each of which a key floods."""

    def __init__(self, **floods: ApiKey) -> None:
        self.queues = Queues()
        self.floods = floods
        self.starts: list[str] = []
        self.is_free = False
        for model, key in floods.items():
            for _ in range(3):
                self.ask(model, key)

    def ask(self, model: str, key: ApiKey) -> None:
        shared = self

        class Sent(Asker):
            def has_room(self) -> bool:
                return shared.is_free

            def send_now(self) -> None:
                shared.is_free = False
                shared.starts.append(self.key.name)

        assert self.queues.enter(model, Sent(key=key), 1 << 20)

    def serve(self, times: int) -> Counter[str]:
        """How many starts each key gets of so many."""
        before = len(self.starts)
        for _ in range(times):
            self.is_free = True
            self.queues.serve(["m", "n"])
            started = self.starts[-1]
            self.ask(
                next(model for model, key in self.floods.items() if key.name == started), self.key(started)
            )
        return Counter(self.starts[before:])

    def key(self, name: str) -> ApiKey:
        return next(key for key in self.floods.values() if key.name == name)


def test_names_of_one_worker_take_turns() -> None:
    """A key that floods one name shuts nobody out who uses the other."""
    assert Shared(m=ApiKey("a"), n=ApiKey("b")).serve(100) == {"a": 50, "b": 50}


@pytest.mark.parametrize(("m", "n"), [(WORK, CHAT), (CHAT, WORK)])
def test_a_higher_class_goes_first_whatever_it_names(m: ApiKey, n: ApiKey) -> None:
    """And the lower one has its turns."""
    assert Shared(m=m, n=n).serve(100) == {CHAT.name: 90, WORK.name: 10}


def test_a_queue_that_begins_anew_waits_for_the_other_names() -> None:
    """Otherwise a name of which one request waits at a time would come first each time."""
    shared = Shared(m=ApiKey("a"))
    for _ in range(9):
        shared.ask("n", ApiKey("b"))
        shared.is_free = True
        shared.queues.serve(["m", "n"])
        shared.ask("m", ApiKey("a"))
        shared.is_free = True
        shared.queues.serve(["m", "n"])
    assert shared.starts == ["a", "b"] * 9


# one class, one key


def test_first_come_first_served() -> None:
    """Nobody overtakes who stands before; whoever has gone is forgotten."""
    queues, first, second = Queues(), Asker(False, True), Asker(True)
    assert queues.enter("m", first, 2)
    assert queues.enter("m", second, 2)
    queues.serve(["m"])
    assert (queues.length("m", NORMAL), second.finds) == (2, [True])
    queues.serve(["other", "m"])
    assert (queues.length("m", NORMAL), first.turns, second.turns) == (0, 1, 1)


def test_only_the_lines_that_are_named_are_served() -> None:
    """Room at one model's worker is none at another's."""
    queues, waiting = Queues(), Asker(True)
    queues.enter("m", waiting, 1)
    queues.serve(["other"])
    assert (queues.length("m", NORMAL), waiting.turns) == (1, 0)


def test_nobody_is_served_once_it_is_closed() -> None:
    """The gateway ends: what it ends makes no room."""
    queues, waiting = Queues(), Asker(True)
    queues.enter("m", waiting, 1)
    queues.clear()
    queues.serve(["m"])
    queues.leave("m", waiting)
    assert waiting.turns == 0


def test_the_first_has_waited_longest() -> None:
    """Of its class, whichever key it is of; where nobody waits there is no time."""
    queues, first, second = Queues(), Asker(key=WORK), Asker(key=ApiKey("other"))
    first.waits_since = 7.0
    assert queues.enter("m", first, 2)
    assert queues.enter("m", second, 2)
    assert [queues.waits_since("m", one) for one in Priority] == [None, 5.0, None]
    assert queues.waits_since("other", NORMAL) is None


def test_a_full_line_takes_nobody() -> None:
    """Nor does one of no length."""
    queues = Queues()
    assert not queues.enter("m", Asker(), 0)
    assert queues.enter("m", Asker(), 1)
    assert not queues.enter("m", Asker(), 1)
    assert queues.enter("other", Asker(), 1)


def test_who_leaves_is_not_called() -> None:
    """A client may go while it waits."""
    queues, gone, next_one = Queues(), Asker(), Asker(True)
    queues.enter("m", gone, 2)
    queues.enter("m", next_one, 2)
    queues.leave("m", gone)
    queues.leave("m", gone)
    queues.serve(["m"])
    assert (queues.length("m", NORMAL), next_one.turns) == (0, 1)


# classes


def test_a_higher_class_goes_first() -> None:
    """Whoever came before."""
    worker = Worker()
    clients = [worker.ask(key) for key in (WORK, BATCH, WORK, CHAT)]
    assert [worker.end()[0] for _ in range(3)] == [clients[3], clients[2], clients[1]]


@pytest.mark.parametrize(("late", "passed_over"), [(False, PASSED_OVER), (True, LATE_PASSED_OVER)])
def test_a_class_that_waits_has_its_turn(late: bool, passed_over: int) -> None:
    """After nine starts of others; after three if it has waited for long."""
    worker = Worker()
    worker.ask(CHAT)
    batch = worker.ask(BATCH)
    batch.late = late
    for _ in range(passed_over):
        worker.ask(CHAT)
        assert worker.end()[0].key is CHAT
    worker.ask(CHAT)
    assert worker.end() == [batch]


def test_each_class_keeps_a_tenth() -> None:
    """While a higher one could take all; the middle one too."""
    assert Worker(4, 4, 4).saturate(1000, CHAT, BATCH) == {"chat": 900, "batch": 100}
    found = Worker(4, 3, 2).saturate(1000, CHAT, WORK, BATCH)
    assert found["batch"] == pytest.approx(100, abs=2)
    assert found["work"] >= 90
    assert found["chat"] >= 700


def test_no_turns_are_saved_up() -> None:
    """A class that had no request waiting, or no place for one, was not passed over."""
    worker = Worker(2, 2, 1)
    running = worker.ask(BATCH)
    waiting = worker.ask(BATCH)
    for _ in range(30):
        chat = worker.ask(CHAT)
        worker.ask(CHAT)
        assert [one.key for one in worker.end(chat)] == [CHAT]
        worker.end(worker.started[-1])
    assert waiting.turns == 0
    assert worker.end(running) == [waiting]


def test_a_place_that_is_kept_is_free() -> None:
    """However many of a lower class wait, one of a higher class finds a place at once."""
    worker = Worker(4, 3, 2)
    for _ in range(20):
        worker.ask(BATCH)
    assert len(worker.running) == 2
    assert [worker.ask(WORK).turns for _ in range(3)] == [1, 0, 0]
    assert [worker.ask(CHAT).turns for _ in range(2)] == [1, 0]


# keys of one class


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_share_by_weight(seed: int) -> None:
    """Within 5 %, whatever their requests cost, when they come and how long they take, if some always wait: the share
    is of what they cost."""
    random = Random(seed)
    keys = [ApiKey(f"k{at}", weight=random.randint(1, 8)) for at in range(random.randint(2, 6))]
    worker = Worker(*[random.randint(1, 8)] * 3)
    typical = {key.name: random.choice([1, 5, 25]) for key in keys}
    waiting: Counter[str] = Counter()
    starts: Counter[str] = Counter()
    got: Counter[str] = Counter()
    while min(starts[key.name] for key in keys) < 100:
        for key in keys:
            while waiting[key.name] < 1 + random.randrange(3):
                waiting[key.name] += not worker.ask(key, typical[key.name] * random.uniform(0.5, 2)).turns
        for one in worker.end(random.choice(worker.running)):
            waiting[one.key.name] -= 1
            starts[one.key.name] += 1
            got[one.key.name] += one.cost
    whole = sum(key.weight for key in keys)
    for key in keys:
        assert got[key.name] / got.total() == pytest.approx(key.weight / whole, rel=0.05), key


def test_equal_requests_are_shared_as_exactly_as_can_be() -> None:
    """In every stretch of one start for each weight."""
    keys = [ApiKey("one", weight=1), ApiKey("two", weight=2), ApiKey("five", weight=5)]
    worker = Worker(3, 3, 3)
    found = worker.saturate(800, *keys, each=20)
    assert found == {"one": 100, "two": 200, "five": 500}
    for at in range(0, 800, 8):
        stretch = Counter(one.key.name for one in worker.started[-800:][at : at + 8])
        assert all(abs(stretch[key.name] - key.weight) <= 2 for key in keys)


def test_idleness_earns_no_credit() -> None:
    """A key that comes after a long time shares from then on; it does not first get what it had not asked for."""
    worker = Worker()
    worker.saturate(1000, ApiKey("steady"))
    found = worker.saturate(20, ApiKey("new"), each=30)
    assert found["new"] == pytest.approx(10, abs=1)


def test_leaving_and_coming_again_earns_nothing() -> None:
    """Nor does it cost the queue anything that grows."""
    worker, restless = Worker(), ApiKey("restless")
    worker.saturate(3, ApiKey("steady"))
    for _ in range(1000):
        worker.queues.leave("m", worker.ask(restless))
    assert len(worker.queues._queues["m"].classes[NORMAL]._order) <= 3
    worker.ask(restless)
    assert worker.saturate(10, ApiKey("steady"))["restless"] == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_in_any_play_a_key_is_served_in_order_and_all_are_served(seed: int) -> None:
    """Clients of all classes come, leave and end at random: none is sent twice, or after it has left or was refused;
    those of one key are sent in order; nobody waits where there is a place; in the end nobody is left."""
    random = Random(seed)
    keys = [
        ApiKey(f"k{at}", priority=random.choice(list(Priority)), weight=random.randint(1, 4))
        for at in range(8)
    ]
    worker = Worker(5, 4, 2, most=random.choice([3, 10, 50]))
    clients: list[Client] = []
    gone: set[int] = set()
    for _ in range(3000):
        match random.randrange(5):
            case 0 | 1 | 2:
                clients.append(worker.ask(random.choice(keys), random.uniform(1, 100)))
            case 3 if worker.running:
                worker.end(random.choice(worker.running))
            case 4 if waiting := [one for one in clients[-60:] if not one.turns and not one.refusals]:
                leaving = random.choice(waiting)
                if leaving.number not in gone:
                    gone.add(leaving.number)
                    worker.queues.leave("m", leaving)
        for priority in Priority:
            assert not (worker.queues.length("m", priority) and worker.has_room(priority))
        assert sum(worker.queues.length("m", priority) for priority in Priority) <= worker.most
    while worker.running:
        worker.end()
    assert all(one.turns + one.refusals + (one.number in gone) == 1 for one in clients)
    for key in keys:
        sent = [one.number for one in worker.started if one.key is key]
        assert all(first < second for first, second in pairwise(sent))
    assert not worker.queues._queues


# a full queue


def test_a_higher_class_takes_the_place_of_a_lower_one() -> None:
    """Of the newest request of the key that has most; a tenth of the queue stays with each class."""
    worker = Worker(most=10)
    worker.ask(CHAT)
    greedy = [worker.ask(ApiKey("greedy", priority=BULK)) for _ in range(7)]
    modest = [worker.ask(BATCH) for _ in range(3)]
    chats = [worker.ask(CHAT) for _ in range(12)]
    assert [one.refusals for one in greedy] == [1] * 7
    assert [one.refusals for one in modest] == [0, 1, 1]
    assert worker.queues.length("m", BULK) == 1
    assert [one.refusals for one in chats] == [0] * 9 + [1] * 3


def test_a_class_gets_what_is_kept_for_it_from_those_that_have_more() -> None:
    """A flood of a higher class does not keep it out."""
    worker = Worker(most=10)
    chats = [worker.ask(CHAT) for _ in range(11)]
    batches = [worker.ask(BATCH) for _ in range(3)]
    assert [one.refusals for one in batches] == [0, 1, 1]
    assert [one.refusals for one in chats] == [0] * 10 + [1]


def test_no_key_fills_the_queue_for_others_of_its_class() -> None:
    """Who has fewer waiting for its weight gets the place of the newest of who has most; equals keep theirs."""
    worker = Worker(most=8)
    first, second, heavy = ApiKey("first"), ApiKey("second"), ApiKey("heavy", weight=3)
    assert not sum(worker.ask(first).refusals for _ in range(9))
    assert worker.ask(first).refusals == 1
    assert [worker.ask(second).refusals for _ in range(6)] == [0, 0, 0, 0, 1, 1]
    assert [worker.ask(heavy).refusals for _ in range(7)] == [0, 0, 0, 0, 0, 1, 1]


def test_in_a_tiny_queue_the_better_one_stays() -> None:
    """There is nothing to keep for others in it."""
    worker = Worker(most=1)
    worker.ask(BATCH)
    batch = worker.ask(BATCH)
    chat = worker.ask(CHAT)
    assert (batch.refusals, chat.refusals) == (1, 0)
    assert worker.ask(BATCH).refusals == 1


# its cost


def seconds_of(waiting: int, keys: int) -> float:
    """The least time of 1,000 requests that come and are sent behind so many others, one of which leaves each time."""
    every = [ApiKey(f"k{at}") for at in range(keys)]
    worker = Worker()
    left = [worker.ask(every[at % keys]) for at in range(waiting)][1:]
    best = 1e9
    for _ in range(3):
        begun = time.perf_counter()
        for at in range(1000):
            left.append(worker.ask(every[at % keys]))
            worker.queues.leave("m", left[len(left) // 2])
            left.append(worker.ask(every[at % keys]))
            worker.end()
        best = min(best, time.perf_counter() - begun)
    return best


def test_a_long_queue_costs_no_more_than_a_short_one() -> None:
    """With a hundred times as many waiting, of many keys, a request does not cost several times as much."""
    for _ in range(3):  # a busy host may be slow once
        if seconds_of(20_000, 50) < 4 * seconds_of(200, 50):
            return
    pytest.fail("the cost of a request grows with the length of the queue")
