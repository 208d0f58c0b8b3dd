"""What a session needs of vLLM: to start it with a serve.yaml, measure it and end it. Tests put a function here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class EngineError(Exception):
    """Nothing can be started at all, whatever the options (no Docker, GPUs in use): the text says why. No result."""


class StartError(Exception):
    """This vLLM did not start with these options, or ended; the text is its own reason. A result."""


WARMING = 1  # rounds at the beginning that do not count


@dataclass(frozen=True)
class Load:
    """How each trial is loaded. Of each concurrency there is one round more than those that count (`rounds`): the first
    only warms up, since many batches come for the first time in it."""

    concurrency: tuple[int, ...]
    rounds: int
    prompts: int
    input_len: int
    output_len: int

    def words(self) -> list[str]:
        """Return the options of `bench/serve.py`."""
        given = {
            "concurrency": ",".join(map(str, self.concurrency)), "rounds": WARMING + self.rounds,
            "prompts": self.prompts, "input-len": self.input_len, "output-len": self.output_len,
        }  # fmt: skip
        return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Measured:
    """Seconds until vLLM was ready, and every round of its loads that counts."""

    ready_s: float
    loads: Sequence[dict[str, Any]]


class Engine(Protocol):
    """Starts vLLM, measures it and ends it."""

    def measure(self, serve_yaml: Path, load: Load) -> Measured:
        """Run one trial. Raises StartError, EngineError. Nothing of it runs afterwards, whatever happened."""
        ...
