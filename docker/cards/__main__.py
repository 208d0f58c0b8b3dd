"""Cards on the command line.

    python3 -m cards show SLUG                     prints a card for people
    python3 -m cards check SLUG [NAME=VALUE ...]   can SLUG run with these? TP, EP (0 or 1), GPUS, GPU_MEMORY_GB
    python3 -m cards host SLUG                     can SLUG run on this host? asks nvidia-smi, memory and weights volume
                      [--kv-offload-gib=GIB]       with so much KV cache in the host's memory, instead of serve.yaml's

Exit codes: 0 yes · 1 the combination is refused · 2 bad input or a wrong card · 3 the host does not fit.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cards import card, describe, host, memory, preflight, validation, volume
from cards.card import Card
from cards.facts import CardError
from cards.host import Gpu, HostError
from cards.request import LayoutRequest, gibibytes, setting

_REFUSED, _BAD_INPUT, _HOST = 1, 2, 3  # exit codes


class _Parser(argparse.ArgumentParser):
    """Prints an error as one line instead of the usage."""

    def error(self, message: str) -> NoReturn:
        """End the program; argparse calls it for a wrong command line."""
        self.exit(_BAD_INPUT, f"cards: {message}\n")


def main(words: Sequence[str]) -> int:
    """Run the command line `words` and return the exit code. Errors go to stderr; for wrong words argparse exits."""
    asked = _arguments().parse_args(words)
    try:
        return _answer(asked, card.load(asked.cards, asked.slug))
    except CardError as error:
        return _say_no(_BAD_INPUT, f"cards: {error}")
    except validation.Refused as refused:
        return _say_no(_REFUSED, str(refused))


def _arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line. The volumes' defaults are where the container `SLUG-check` has them."""
    parser = _Parser(prog="cards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cards", type=Path, default=Path(__file__).parents[1], help="directory of the slugs"
    )
    parser.add_argument("--weights", type=Path, default=Path("/weights"), help="the weights volume")
    parser.add_argument("--slots", type=Path, default=Path("/gpu-slots"), help="the volume of GPU slots")
    parser.add_argument("--meminfo", type=Path, default=Path("/proc/meminfo"), help="the host's memory")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("show", "check", "host"):
        verbs.add_parser(verb).add_argument("slug")
    verbs.choices["host"].add_argument("--kv-offload-gib", type=gibibytes, metavar="GIB")
    verbs.choices["check"].add_argument("settings", nargs="*", type=setting, metavar="NAME=VALUE")
    return parser


def _answer(asked: argparse.Namespace, found: Card) -> int:
    """Run the verb on the card, print the answer, return the exit code. Raises `CardError`, `validation.Refused`."""
    if asked.verb == "host":
        return _host(asked, found)
    if asked.verb == "check":
        lines = [validation.verdict(found, LayoutRequest.of(asked.settings))]
    else:
        lines = list(describe.lines(found))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _host(asked: argparse.Namespace, found: Card) -> int:
    """Print what keeps the slug from running on this host, or that nothing does; return the exit code."""
    problems = _gpu_problems(asked, found) + _disk_problems(asked, found)
    if problems:
        return _say_no(_HOST, *problems)
    sys.stdout.write(f"this host can run {found.slug}: GPUs, driver, memory and disk are as its card asks\n")
    return 0


def _gpu_problems(asked: argparse.Namespace, found: Card) -> list[str]:
    """Return what is wrong with the host's GPUs, and with its memory if KV cache is kept there, or why they cannot be
    examined; nothing for a slug on the CPU."""
    if found.gpus is None:
        return []
    try:
        seen = host.gpus(asked.slots)
        return [*preflight.of_gpus(found, seen), *_memory_problems(asked, found, seen)]
    except HostError as error:
        return [str(error)]


def _memory_problems(asked: argparse.Namespace, found: Card, seen: Sequence[Gpu]) -> list[str]:
    """Return that the host's memory is too small for the KV cache beyond the GPUs, if it is. Raises HostError."""
    wanted = found.kv_offload_gib if asked.kv_offload_gib is None else asked.kv_offload_gib
    return list(preflight.of_memory(found, wanted, memory.measure(asked.meminfo), seen)) if wanted else []


def _disk_problems(asked: argparse.Namespace, found: Card) -> list[str]:
    """Return what is wrong with the weights volume, or why it cannot be examined."""
    try:
        return list(preflight.of_disk(found, volume.measure(asked.weights, found.slug, found.weights.repo)))
    except HostError as error:
        return [str(error)]


def _say_no(code: int, *sentences: str) -> int:
    """Print the sentences to stderr and return `code`, with which the program then ends."""
    sys.stderr.writelines(f"{sentence}\n" for sentence in sentences)
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    sys.exit(main(sys.argv[1:]))
