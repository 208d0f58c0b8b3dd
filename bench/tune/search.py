"""Decides what is tried next: coordinate descent from serve.yaml's values. Pure: a generator that yields changes to try
and is sent their scores, so that it runs through a journal's trials again as it did the first time.

One option after another is moved while that pays by more than the spread; a ladder step by step, others value by value.
When all were looked at, those that were moved are looked at once more, since they may depend on each other."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from bench.tune.goal import WORST, Score
from bench.tune.option import Changes, Option, Value

Search = Generator[dict[str, Value], Score, "Best"]


@dataclass(frozen=True)
class Best:
    """The best that was found: what differs from serve.yaml (nothing at first), and its score."""

    changes: dict[str, Value]
    score: Score


def descend(options: Sequence[Option], most: int) -> Search:
    """Search with at most so many trials, serve.yaml's own values being the first. Returns the best."""
    return (yield from _Descent(most).run(options))


class _Descent:
    """One search: what was tried, so that nothing is tried twice, and how many trials are left."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._tried: dict[str, Score] = {}
        self._best = Best({}, WORST)

    def run(self, options: Sequence[Option]) -> Search:
        """Try serve.yaml as it is, then move option after option, until none of those that moved moves again."""
        self._best = Best({}, (yield from self._try({})))
        while options and self._best.score != WORST:
            moved = []
            for option in options:
                before = self._best
                yield from (self._climb(option) if option.is_ladder else self._choose(option))
                if self._best is not before:
                    moved.append(option)
            options = moved if len(moved) > 1 else []
        return self._best

    def _climb(self, option: Option) -> Generator[dict[str, Value], Score, None]:
        """Go along the ladder while that pays; try the other way only if the first brought nothing."""
        steps = option.ladder()
        ways = (1, -1) if option.first == "up" else (-1, 1)
        for way in ways:
            before = self._best
            at = steps.index(option.step(self._value(option))) + way
            while 0 <= at < len(steps) and (yield from self._pays(option, option.value_at(steps[at]))):
                at += way
            if self._best is not before:
                return

    def _choose(self, option: Option) -> Generator[dict[str, Value], Score, None]:
        """Try each other value."""
        for value in option.values:
            yield from self._pays(option, value)

    def _value(self, option: Option) -> Value:
        return self._best.changes.get(option.name, option.shipped)

    def _pays(self, option: Option, value: Value) -> Generator[dict[str, Value], Score, bool]:
        """Try the best with this value instead; if that beats it, it is the best from now on."""
        changes = {name: other for name, other in self._best.changes.items() if name != option.name}
        if value != option.shipped:
            changes[option.name] = value
        score = yield from self._try(changes)
        if pays := score.beats(self._best.score):
            self._best = Best(changes, score)
        return pays

    def _try(self, changes: dict[str, Value]) -> Generator[dict[str, Value], Score, Score]:
        """Return the score of these changes: known already, or yielded to be measured; WORST if no trial is left."""
        key = key_of(changes)
        if key not in self._tried:
            if self._left == 0:
                return WORST
            self._left -= 1
            self._tried[key] = yield changes
        return self._tried[key]


def key_of(changes: Changes) -> str:
    """Return a text that is equal for equal changes, whatever their order."""
    return repr(sorted(changes.items()))
