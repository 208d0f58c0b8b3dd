"""Writes what a session found, as files that a person may put to use: nothing is taken over by itself."""

import textwrap
from collections.abc import Iterable

from bench.tune import variant
from bench.tune.journal import Trial
from bench.tune.search import key_of
from bench.tune.tuning import Outcome, Tuning, describe, result

_WIDTH = 116


def write(tuning: Tuning, outcome: Outcome, slug: str, subject: str) -> list[str]:
    """Write serve.yaml with its evidence and a Compose file that mounts it; return the lines that say how to use them.
    `subject` is what was measured: build and hardware. Nothing is written if nothing was better."""
    if not outcome.is_better:
        return list(_nothing(tuning, outcome))
    file = tuning.folder / "serve.yaml"
    lines = [part for line in _evidence(tuning, outcome, subject) for part in textwrap.wrap(line, _WIDTH)]
    remarks = "".join(f"# {line}\n" for line in lines)
    file.write_text(variant.text(tuning.serve_yaml.read_text(), outcome.best.changes, remarks + "\n"))
    file.chmod(0o644)  # the container's user reads it
    overlay = tuning.folder / "compose.yaml"
    overlay.write_text(f'services: {{{slug}: {{volumes: ["{file.resolve()}:/etc/octet/serve.yaml:ro"]}}}}\n')
    score = outcome.best.score
    return [
        f"{describe(outcome.best.changes)}: score {score.value:.2f} (spread {score.spread:.2f})",
        *(f"serve.yaml as it is: {score.value:.2f} (spread {score.spread:.2f})" for score in outcome.shipped),
        *_beyond(tuning, outcome),
        f"written: {file}. Nothing uses it yet. To use it",
        f"  for good:   cp {file} docker/{slug}/serve.yaml && make build MODEL={slug} && docker compose up -d {slug}",
        f"  for a try:  COMPOSE_FILE=compose.yaml:{overlay} docker compose up -d {slug}",
        "              (where .env sets COMPOSE_FILE, its files go before that one)",
        "make clean removes out/ with both files; the journal beside them has every round",
    ]  # fmt: skip


def _nothing(tuning: Tuning, outcome: Outcome) -> Iterable[str]:
    """Yield why nothing was written."""
    count = len(tuning.journal.trials)
    if not outcome.best.changes:
        yield f"nothing that was tried beats serve.yaml by more than the rounds differ ({count} trials)"
    else:
        yield (
            f"{describe(outcome.best.changes)} was better than serve.yaml at first, and no longer when that was "
            "measured again: the host itself has changed meanwhile; try when it is quiet, or with more rounds"
        )
    yield from _beyond(tuning, outcome)
    yield "nothing was written"


def _beyond(tuning: Tuning, outcome: Outcome) -> Iterable[str]:
    """Yield that even the best is not within the targets, if it is not."""
    if outcome.best.score.value < 0:
        yield (
            f"no trial keeps {tuning.goal}: the best is {-outcome.best.score.value:.0%} beyond; try fewer requests "
            "at once (TUNE='--concurrency 1'), shorter prompts, or more cards"
        )


def _evidence(tuning: Tuning, outcome: Outcome, subject: str) -> Iterable[str]:
    """Yield the comments that go to the head of the file: what was measured, before and after."""
    best = key_of(outcome.best.changes)
    yield f"Written by `make tune` for {tuning.goal}, on this host: {subject}."
    yield f"Load of each trial: {' '.join(tuning.load.words())}; a score is the median of all rounds but the first."
    yield f"Changed: {describe(outcome.best.changes)}"
    for trial in _told(tuning.journal.trials, best):
        figures = result(trial, tuning.goal.score(trial.loads))
        yield f"{trial.date}, {describe(trial.changes)}:"
        yield figures
    yield f"{len(tuning.journal.trials)} trials in all, in {tuning.folder / 'journal.jsonl'}"


def _told(trials: Iterable[Trial], best: str) -> Iterable[Trial]:
    """Yield serve.yaml's own trials and the best."""
    return (trial for trial in trials if not trial.changes or key_of(trial.changes) == best)
