"""Pins another build of vLLM: finds its wheel, fetches it, hashes the bytes on disk, writes card and Dockerfile.

usage: bump.py --model SLUG (--commit COMMIT | --version VERSION)

The wheel stays in docker/wheelhouse/, where the next build finds it. errors.py has the exit codes.
"""

import argparse
import datetime
import hashlib
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pins import index, python_index, wheel
from pins.errors import BumpError, HashError, NoLockError, WheelError
from pins.recipe import Pin, Recipe
from pins.request import Request

DOCKER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Fetched:
    """A wheel on disk, the content it has, and the commit that its address names, if it does."""

    path: Path
    sha256: str
    commit: str


def bump(request: Request, docker: Path, nightly_index: str) -> Recipe:
    """Writes the pin and returns the slug's files as they now are. Raises BumpError, with nothing written."""
    recipe = Recipe.read(docker, request.slug)
    if request.version:
        request.refuse_below(recipe.minimum, request.version)
    with tempfile.TemporaryDirectory(dir=docker / "wheelhouse", prefix=".bump-") as scratch:
        fetched = _fetch(request, recipe, nightly_index, Path(scratch))
        changed = recipe.with_pin(_pin(request, recipe, fetched))
        fetched.path.replace(docker / "wheelhouse" / fetched.path.name)
    changed.write()
    return changed


def _fetch(request: Request, recipe: Recipe, nightly_index: str, scratch: Path) -> Fetched:
    distribution = recipe.wheels[0].distribution
    if request.version and not nightly_index:
        path = python_index.download(distribution, request.version, scratch)
        return Fetched(path, _sha256(path), "")
    variant = "cpu" if recipe.variant == "cpu" else ""
    address = index.page(nightly_index or index.DEFAULT, request.folder, variant, distribution)
    with index.client() as http:
        link = wheel.choose(index.listing(http, address), distribution, request.commit)
        request.refuse_below(recipe.minimum, wheel.version(link.file, distribution).public)
        path = index.download(http, link, scratch)
    named = re.search(r"/([0-9a-f]{40})/", link.url)
    return Fetched(path, _declared(link, _sha256(path)), named[1] if named else "")


def _declared(link: index.Link, found: str) -> str:
    if link.sha256 not in ("", found):
        raise HashError(
            f"{link.file} has sha256 {found}, the index declares {link.sha256}: fetch it again, or doubt it"
        )
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pin(request: Request, recipe: Recipe, fetched: Fetched) -> Pin:
    """What the card will say. Raises WheelError if the wheel is not what was asked for, or does not fit."""
    vllm, torch = recipe.wheels
    file = fetched.path.name
    version = wheel.version(file, vllm.distribution, request.commit)
    if request.version and version.public != request.version:
        raise WheelError(f"{file} is not version {request.version}")
    contents = wheel.look_inside(fetched.path, vllm.distribution)
    if request.commit and not request.commit.startswith(contents.commit):
        raise WheelError(
            f"{file} says inside that it was built from {contents.commit}, not from {request.commit}"
        )
    wheel.refuse_other_torch(contents, file, torch.version)
    commit = request.commit or fetched.commit or contents.commit or _known(recipe, version.public)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Pin(version.public, commit, file, fetched.sha256, today)


def _known(recipe: Recipe, version: str) -> str:
    """A release's commit as another card has it: a third party's wheel does not say."""
    others = sorted(path.parent.name for path in recipe.directory.parent.glob("*/card.yaml"))
    pins = [Recipe.read(recipe.directory.parent, slug).pin for slug in others]
    commit = next((pin.commit for pin in pins if pin.version == version), "")
    if not commit:
        raise WheelError(
            f"the wheel of {version} does not say its commit: pin {version} for a GPU slug first"
        )
    return commit


def main(words: list[str]) -> int:
    """Returns the exit code; one line says what was pinned, or why not."""
    parser = argparse.ArgumentParser(prog="bump", description=__doc__.splitlines()[0])
    for name in ("model", "commit", "version"):
        parser.add_argument(f"--{name}", default="")
    asked = parser.parse_args(words)
    try:
        request = Request.of(asked.model, asked.commit, asked.version)
        recipe = bump(request, DOCKER, os.environ.get("VLLM_WHEEL_INDEX", ""))
        sys.stdout.write(
            f"bump: {recipe.slug} pins {recipe.pin.wheel} of {recipe.pin.commit}, sha256 {recipe.pin.sha256}\n"
        )
        _need_lock(recipe)
    except BumpError as error:
        sys.stderr.write(f"bump: {error}\n")
        return error.exit_code
    return 0


def _need_lock(recipe: Recipe) -> None:
    if not recipe.lock.is_file():
        raise NoLockError(
            f"docker/locks/{recipe.lock.name} is missing: make it with scripts/lock {recipe.slug}"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
