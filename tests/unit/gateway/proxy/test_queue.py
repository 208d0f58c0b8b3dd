"""Lines of requests that wait for a worker: first come, first served, and no longer than allowed."""

from gateway.proxy.queue import Queues


class Asker:
    """Finds room as it is told."""

    def __init__(self, *finds: bool) -> None:
        self.finds = list(finds)
        self.turns = 0
        self.waits_since: float | None = 5.0

    def has_room(self) -> bool:
        return self.finds.pop(0)

    def send_now(self) -> None:
        self.turns += 1


def test_first_come_first_served() -> None:
    """Nobody overtakes who stands before; whoever has gone is forgotten."""
    queues, first, second = Queues(), Asker(False, True), Asker(True)
    assert queues.enter("m", first, 2)
    assert queues.enter("m", second, 2)
    queues.serve(["m"])
    assert (queues.length("m"), second.finds) == (2, [True])
    queues.serve(["other", "m"])
    assert (queues.length("m"), first.turns, second.turns) == (0, 1, 1)


def test_only_the_lines_that_are_named_are_served() -> None:
    """Room at one model's worker is none at another's."""
    queues, waiting = Queues(), Asker(True)
    queues.enter("m", waiting, 1)
    queues.serve(["other"])
    assert (queues.length("m"), waiting.turns) == (1, 0)


def test_nobody_is_served_once_it_is_closed() -> None:
    """The gateway ends: what it ends makes no room."""
    queues, waiting = Queues(), Asker(True)
    queues.enter("m", waiting, 1)
    queues.clear()
    queues.serve(["m"])
    queues.leave("m", waiting)
    assert waiting.turns == 0


def test_the_first_has_waited_longest() -> None:
    """Where nobody waits there is no time."""
    queues, first, second = Queues(), Asker(), Asker()
    second.waits_since = 7.0
    queues.enter("m", first, 2)
    queues.enter("m", second, 2)
    assert (queues.waits_since("m"), queues.waits_since("other")) == (5.0, None)


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
    queues.serve(["m"])
    assert (queues.length("m"), next_one.turns) == (0, 1)
