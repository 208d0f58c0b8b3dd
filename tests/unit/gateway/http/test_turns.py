"""Turns: one step in each turn of the loop, fairly, and none stops the others."""

import asyncio

from gateway.http.turns import Turns


async def test_one_step_in_each_turn_of_the_loop() -> None:
    """In turn with others, also with those that come meanwhile."""
    loop = asyncio.get_running_loop()
    turns, done, ticks = Turns(loop), list[tuple[str, int]](), 0
    left = {"a": 3, "b": 1, "late": 2}

    def step(name: str) -> bool:
        done.append((name, ticks))
        left[name] -= 1
        if name == "b":
            turns.add(lambda: step("late"))
        return left[name] > 0

    turns.add(lambda: step("a"))
    turns.add(lambda: step("b"))
    while any(left.values()):
        await asyncio.sleep(0)
        ticks += 1
    assert [name for name, _ in done] == ["a", "b", "a", "late", "a", "late"]
    assert len({tick for _, tick in done}) == len(done)


async def test_a_step_that_fails_stops_no_other() -> None:
    """It is told to the loop, and is not tried again."""
    loop, told, done = asyncio.get_running_loop(), list[object](), asyncio.Event()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    turns, failure = Turns(loop), ZeroDivisionError()

    def fails() -> bool:
        raise failure

    def ends() -> bool:
        done.set()
        return False

    turns.add(fails)
    turns.add(ends)
    await asyncio.wait_for(done.wait(), 30)
    assert told == [failure]
