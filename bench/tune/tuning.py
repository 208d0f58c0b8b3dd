"""One session: runs what the search wants to know, keeps it in the journal, and writes the best as a serve.yaml."""

import datetime
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.tune import search, variant
from bench.tune.engine import Engine, Load, StartError
from bench.tune.goal import WORST, Goal, Score
from bench.tune.journal import Journal, Trial
from bench.tune.option import Changes, Option
from bench.tune.search import Best, key_of

Say = Callable[[str], None]
CONFIRMING = 1  # of the trials: serve.yaml as it is once more, at the end


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Outcome:
    """What a session found. `shipped`: serve.yaml's scores, at first and, if something was better, at the end."""

    best: Best
    shipped: Sequence[Score]

    @property
    def is_better(self) -> bool:
        """Return whether the best beats serve.yaml as measured before and after: else the host itself has changed."""
        return bool(self.best.changes) and all(self.best.score.beats(score) for score in self.shipped)


@dataclass(frozen=True)
class Tuning:
    """What is tuned, on what engine, towards which goal; `serve_yaml` is the slug's, `folder` is for files."""

    serve_yaml: Path
    folder: Path
    options: Sequence[Option]
    goal: Goal
    load: Load
    engine: Engine
    journal: Journal
    most: int
    say: Say = _print

    def run(self) -> Outcome:
        """Search, with the journal's trials first. Raises EngineError, OSError."""
        done: dict[str, Score] = {}
        for trial in self.journal.trials:
            done.setdefault(key_of(trial.changes), self._score(trial))  # the search's, not the confirming one
        descent = search.descend(self.options, self.most - CONFIRMING)
        try:
            changes = next(descent)
            while True:
                key = key_of(changes)
                if key not in done:
                    done[key] = self._score(self._trial(changes))
                changes = descent.send(done[key])
        except StopIteration as found:
            best: Best = found.value
        if best.changes and len(self._shipped()) == 1:
            self._trial({})
        return Outcome(best, self._shipped())

    def _shipped(self) -> list[Score]:
        return [self._score(trial) for trial in self.journal.trials if not trial.changes]

    def _score(self, trial: Trial) -> Score:
        return WORST if trial.failure else self.goal.score(trial.loads)

    def _trial(self, changes: Changes) -> Trial:
        """Run one trial and keep it."""
        self.say(f"tune: trial {len(self.journal.trials) + 1} of at most {self.most}: {describe(changes)}")
        file = self.folder / "trial.yaml"
        file.write_text(variant.text(self.serve_yaml.read_text(), changes))
        file.chmod(0o644)  # the container's user reads it
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        try:
            measured = self.engine.measure(file, self.load)
            trial = Trial(dict(changes), list(measured.loads), "", round(measured.ready_s, 1), now)
        except StartError as error:
            trial = Trial(dict(changes), [], str(error), 0.0, now)
        self.journal.add(trial)
        self.say(f"tune: {result(trial, self._score(trial))}")
        return trial


def describe(changes: Changes) -> str:
    """Return changes as text for people."""
    if not changes:
        return "serve.yaml as it is"
    return ", ".join(
        f"without {name}" if value is None else f"{name}: {value}" for name, value in changes.items()
    )


def result(trial: Trial, score: Score) -> str:
    """Return what came of a trial as text for people."""
    if trial.failure:
        return f"failed: {trial.failure}"
    if score == WORST:
        problems = [str(load["failure"]) for load in trial.loads if "failure" in load]
        return f"requests failed: {problems[0][-300:] if problems else 'some were not answered'}"
    best = max(trial.loads, key=lambda load: float(load["output_throughput"]))
    return (
        f"{best['output_throughput']:.1f} tokens/s for {best['concurrency']} at once, "
        f"TTFT p50 {best['median_ttft_ms']:.0f} ms, TPOT p50 {best['median_tpot_ms']:.1f} ms; "
        f"score {score.value:.2f}, spread {score.spread:.2f}"
    )
