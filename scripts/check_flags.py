"""Asks each slug's pinned vLLM, on this machine without a GPU, whether it accepts the slug's options.

The parser runs in the CPU worker's image, with the Python files of the wheel that the slug's card pins. That wheel is
fetched once, by hash, into out/wheels. That vLLM must know the classes that the card names, too; --built imports them.
Exit codes: 0 all are accepted · 1 one is refused · 2 no such slug or file · 3 the image or the wheel could not be had.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / "out" / "wheels"
PARSER = "qwen3-0p6b-cpu"  # in its worker's image the parser runs
REFUSED, WRONG, MISSING = 1, 2, 3
ONE_REFUSED = 10  # what flags.py ends with


class CannotCheck(Exception):
    """The check could not be made; the first argument is the exit code, the second the line to print."""


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slug", nargs="?", metavar="SLUG", help="default: all")
    parser.add_argument(
        "tried", nargs="?", type=Path, metavar="SERVE_YAML", help="to be tried in place of the slug's own"
    )
    parser.add_argument("--built", action="store_true", help="ask the slug's own image, as it was built")
    given = parser.parse_args(words)
    try:
        project = composed()
        wanted = slugs() if given.slug is None else [given.slug]
        asked = [request(project["services"], slug, given.tried) for slug in wanted]
        return max((ask_built if given.built else ask_pinned)(project, asked, given.tried))
    except CannotCheck as error:
        print(f"check-flags: {error.args[1]}", file=sys.stderr)
        return int(error.args[0])


def ask_pinned(project: dict[str, Any], asked: list[dict[str, Any]], tried: Path | None) -> Iterator[int]:
    """Asks the vLLM that each slug's card pins. Raises CannotCheck."""
    compose("--profile", PARSER, "build", "--quiet", PARSER)
    wheels = {entry["slug"]: pinned_wheel(entry["slug"]) for entry in asked}
    asked = sorted(asked, key=lambda entry: str(wheels[entry["slug"]]))
    for wheel, group in groupby(asked, key=lambda entry: wheels[entry["slug"]]):
        yield ask(f"{project['name']}-{PARSER}", wheel, list(group), tried)


def ask_built(project: dict[str, Any], asked: list[dict[str, Any]], tried: Path | None) -> Iterator[int]:
    """Asks the vLLM inside each slug's own image. Raises CannotCheck."""
    for entry in asked:
        image = f"{project['name']}-{entry['slug']}"
        said(["docker", "image", "inspect", image])
        yield ask(image, None, [entry], tried)


def slugs() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("docker/*/card.yaml"))


def composed() -> dict[str, Any]:
    """The project, every service as Compose would run it."""
    project: dict[str, Any] = json.loads(compose("--profile", "*", "config", "--format", "json"))
    return project


def request(services: dict[str, Any], slug: str, tried: Path | None) -> dict[str, Any]:
    """What flags.py is told of a slug. Raises CannotCheck."""
    if slug not in slugs():
        raise CannotCheck(WRONG, f"there is no slug {slug!r}; there are: {', '.join(slugs())}")
    if tried and not tried.is_file():
        raise CannotCheck(WRONG, f"there is no file {tried}")
    serve = "/tried.yaml" if tried else f"/slugs/{slug}/serve.yaml"
    return {
        "slug": slug,
        "environment": services[slug]["environment"] | {"LAUNCHER_SERVE_CONFIG": serve},
        "arguments": services[slug]["command"],
        "architectures": card(slug)["weights"]["architectures"],
    }


def card(slug: str) -> dict[str, Any]:
    facts: dict[str, Any] = yaml.safe_load((ROOT / "docker" / slug / "card.yaml").read_text())
    return facts


def pinned_wheel(slug: str) -> Path | None:
    """The wheel that the slug's card pins, fetched if need be; None: that of the image. Raises CannotCheck."""
    pin = card(slug)["pin"]["vllm"]
    if slug == PARSER:
        return None
    wheel = WHEELS / str(pin["wheel"])
    if not wheel.exists():
        fetch(f"{pin.get('distribution', 'vllm')}=={pin['version']} --hash=sha256:{pin['sha256']}")
    return wheel


def fetch(requirement: str) -> None:
    """Puts the one file that satisfies a requirement with a hash into WHEELS. Raises CannotCheck."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    wanted = WHEELS / "wanted.txt"
    wanted.write_text(f"{requirement}\n")
    print(f"check-flags: fetching {requirement.split()[0]}", file=sys.stderr)
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", "3.12"]
    options += ["--find-links", str(ROOT / "docker" / "wheelhouse")]  # where `make bump` leaves a nightly
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *options]
    said([*words, "--dest", str(WHEELS), "--requirement", str(wanted)])


def ask(image: str, wheel: Path | None, asked: list[dict[str, Any]], tried: Path | None) -> int:
    """Runs flags.py in a container without network, rights or weights; returns its exit code."""
    mounts = {ROOT / "docker": "/slugs", ROOT / "scripts/flags.py": "/flags.py"}
    mounts |= {wheel: f"/{wheel.name}"} if wheel else {}
    mounts |= {tried.resolve(): "/tried.yaml"} if tried else {}
    words = ["docker", "run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=ALL"]
    words += ["--security-opt=no-new-privileges", "--tmpfs=/tmp:mode=1777"]
    words += ["--env=PYTHONPATH=/slugs", "--env=VLLM_LOGGING_LEVEL=ERROR"]
    words += [f"--volume={here}:{there}:ro" for here, there in mounts.items()]
    words += ["--entrypoint=python3", image, "/flags.py", *([f"/{wheel.name}"] if wheel else [])]
    code = subprocess.run(words, input=json.dumps(asked), text=True).returncode
    return {0: 0, ONE_REFUSED: REFUSED}.get(code, MISSING)


def compose(*words: str) -> str:
    """What `docker compose` prints. Raises CannotCheck."""
    return said(["docker", "compose", *words])


def said(words: list[str]) -> str:
    """A program's output. Raises CannotCheck with the program's last line if it fails."""
    try:
        done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True)
    except OSError as error:
        raise CannotCheck(MISSING, f"{words[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotCheck(MISSING, f"{' '.join(words[:4])} ... failed: {last}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
