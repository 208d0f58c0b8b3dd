"""Looks for values of serve.yaml that do better on this host, one start of vLLM for each that is tried (`make tune`).

usage: python -m bench.tune SLUG [--ttft-ms 500] [--tpot-ms 40] [--lossy 1] [--runs 12] [--concurrency 1,8,32]
           [--rounds 3] [--prompts 5] [--input-len 256] [--output-len 128] [--options FILE] [--checkpoint FOLDER]
Without targets the most tokens/s are wanted, with them the most that keep the medians within them. What was measured
is kept in out/tune/SLUG/journal.jsonl after each trial: a session that was ended goes on there. With --checkpoint it
needs no Docker: this Python's vLLM serves that folder.
Exit codes: 0 done, better or not · 1 serve.yaml as it is does not start or answer · 2 wrong words, slug or options
· 3 nothing can be started here: no Docker, the slug runs, another session runs.
"""

import argparse
import fcntl
import hashlib
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import yaml

from bench.gpu import recipe
from bench.tune import option, report
from bench.tune.compose_engine import ComposeEngine
from bench.tune.engine import EngineError, Load
from bench.tune.goal import WORST, Goal
from bench.tune.host_engine import HostEngine
from bench.tune.journal import Journal, JournalError
from bench.tune.option import Option, OptionsError
from bench.tune.tuning import Tuning, result

ROOT = Path(__file__).resolve().parents[2]
FAILED, WRONG, UNABLE = 1, 2, 3
STOPPED = 128 + signal.SIGTERM
# requests at once, by goal and hardware: the targets decide how many of them are served
AT_ONCE = {
    ("targets", True): "1,8,32,128",
    ("targets", False): "1,2,4,8",
    ("most", True): "128",
    ("most", False): "8",
}


def main(words: list[str]) -> int:
    """Run a session and return the exit code."""
    given = _arguments().parse_args(words)
    signal.signal(signal.SIGTERM, _stop)
    if not (ROOT / "docker" / given.slug / "card.yaml").exists():
        return _say(WRONG, f"there is no slug {given.slug!r}")
    try:
        return _session(given)
    except (OptionsError, JournalError) as error:
        return _say(WRONG, str(error))
    except (EngineError, OSError) as error:
        return _say(UNABLE, str(error))
    except KeyboardInterrupt:
        return _say(STOPPED, "stopped; the same command goes on")


def _session(given: argparse.Namespace) -> int:
    """Open what a session needs, run it and print what it found."""
    folder: Path = given.folder or ROOT / "out/tune" / given.slug
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(f"another session works in {folder}: wait for it, or end it") from None
        return _tune(given, folder)


def _tune(given: argparse.Namespace, folder: Path) -> int:
    serve_yaml: Path = given.serve_yaml or ROOT / "docker" / given.slug / "serve.yaml"
    shipped = yaml.safe_load(serve_yaml.read_text())
    card = yaml.safe_load((ROOT / "docker" / given.slug / "card.yaml").read_text())
    gpus = int(card["hardware"]["gpus"])
    goal = Goal(given.ttft_ms, given.tpot_ms)
    load = _load(given, goal, on_gpus=gpus > 0)
    options = option.load(given.options, shipped, gpus=gpus, lossy=given.lossy == "1")
    subject = f"vLLM {card['pin']['vllm']['version']}, {_hardware(gpus)}"
    session = _what(given.slug, serve_yaml, goal, load, options, subject)
    engine = _engine(given, folder, gpus, trust_remote_code=bool(shipped.get("trust-remote-code")))
    journal = Journal(folder / "journal.jsonl", session)
    engine.check()
    tuning = Tuning(serve_yaml, folder, options, goal, load, engine, journal, given.runs)
    outcome = tuning.run()
    if outcome.best.score == WORST:
        return _say(FAILED, f"serve.yaml as it is: {result(journal.trials[0], WORST)}")
    for line in report.write(tuning, outcome, given.slug, subject):
        print(line)
    return 0


def _engine(
    given: argparse.Namespace, folder: Path, gpus: int, *, trust_remote_code: bool
) -> ComposeEngine | HostEngine:
    if given.checkpoint:
        return HostEngine(
            given.slug, given.checkpoint.resolve(), folder.resolve(), gpus, given.within_s, given.port
        )
    names = recipe.served_names(given.slug)
    model = given.slug if given.slug in names else names[0]
    return ComposeEngine(ROOT, given.slug, model, given.within_s, trust_remote_code=trust_remote_code)


def _load(given: argparse.Namespace, goal: Goal, *, on_gpus: bool) -> Load:
    kind = "targets" if goal.ttft_ms or goal.tpot_ms else "most"
    concurrency = given.concurrency or tuple(map(int, AT_ONCE[kind, on_gpus].split(",")))
    return Load(concurrency, given.rounds, given.prompts, given.input_len, given.output_len)


def _what(
    slug: str, serve_yaml: Path, goal: Goal, load: Load, options: list[Option], subject: str
) -> dict[str, str]:
    """Return what all trials of a session have in common, as the journal keeps it."""
    return {
        "slug": slug,
        "serve.yaml": hashlib.sha256(serve_yaml.read_bytes()).hexdigest(),
        "goal": str(goal),
        "load": " ".join(load.words()),
        "options": hashlib.sha256(repr(options).encode()).hexdigest(),
        "host": f"{platform.node()}, {subject}",
    }


def _hardware(gpus: int) -> str:
    """Return the GPUs' names for the evidence; the processor's kind for a slug without."""
    if not gpus:
        return f"{platform.machine()} CPU"
    words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "GPUs that nvidia-smi does not tell"
    names = said.split("\n")[:-1]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "no GPU"


def _number(text: str) -> float | None:
    """Return a target; None if it is empty, as make hands on what is not set."""
    if not text:
        return None
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _whole(text: str) -> int:
    """Return a whole number from 1."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _two_or_more(text: str) -> int:
    """Return a number of rounds or runs: of a single one nobody could tell a gain from chance."""
    if (value := int(text)) < 2:
        raise ValueError
    return value


def _wholes(text: str) -> tuple[int, ...]:
    return tuple(map(_whole, text.split(",")))


class _Parser(argparse.ArgumentParser):
    """Prints an error as one line instead of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"tune: {message}\n")


def _arguments() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bench.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slug")
    parser.add_argument("--ttft-ms", type=_number)
    parser.add_argument("--tpot-ms", type=_number)
    parser.add_argument(
        "--lossy", default="", help="1: also what may change answers, such as an FP8 KV cache"
    )
    parser.add_argument("--runs", type=_two_or_more, default=12, help="starts of vLLM at most")
    parser.add_argument("--concurrency", type=_wholes)
    parser.add_argument(
        "--rounds", type=_two_or_more, default=3, help="at least 2: one tells nothing of the spread"
    )
    parser.add_argument("--prompts", type=_whole, default=5, help="for each that is open at once")
    parser.add_argument("--input-len", type=_whole, default=256)
    parser.add_argument("--output-len", type=_whole, default=128)
    parser.add_argument("--options", type=Path, default=Path(__file__).with_name("options.yaml"))
    parser.add_argument("--within-s", type=_whole, default=3600, help="for a start of vLLM")
    parser.add_argument("--folder", type=Path, help="for journal and results, instead of out/tune/SLUG")
    parser.add_argument("--checkpoint", type=Path, help="serve this folder without Docker")
    parser.add_argument("--serve-yaml", type=Path, help="begin with this file instead of the slug's")
    parser.add_argument("--port", type=_whole, default=18000, help="with --checkpoint")
    return parser


def _stop(number: int, frame: object) -> NoReturn:
    """End as a KeyboardInterrupt does, so that the trial's vLLM is ended too."""
    raise KeyboardInterrupt


def _say(code: int, sentence: str) -> int:
    print(f"tune: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
