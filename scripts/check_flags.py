"""Asks each slug's pinned vLLM, on this machine without a GPU, whether it accepts the slug's options.

usage: check_flags.py [SLUG [SERVE_YAML]]     SERVE_YAML: to be tried in place of the slug's own; without SLUG: all
       check_flags.py --built SLUG            asks the slug's own image, which must have been built

The parser runs in the CPU worker's image, with the Python files of the wheel that the slug's card pins. That wheel is
fetched once, by hash, into out/wheels. That vLLM must know the classes that the card names, too; --built imports them.
Exit codes: 0 all are accepted · 1 one is refused · 2 no such slug or file · 3 the image or the wheel could not be had.
"""

import json
import subprocess
import sys
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
    try:
        if words[:1] == ["--built"]:
            return ask_built(composed(), *words[1:2])
        project = composed()
        services = project["services"]
        asked = [request(services, slug, words[1:]) for slug in words[:1] or slugs()]
        image = built_image(project)
        wheels = {entry["slug"]: pinned_wheel(entry["slug"]) for entry in asked}
        asked.sort(key=lambda entry: str(wheels[entry["slug"]]))
        groups = groupby(asked, key=lambda entry: wheels[entry["slug"]])
        return max(ask(image, wheel, list(group), words[1:]) for wheel, group in groups)
    except CannotCheck as error:
        print(f"check-flags: {error.args[1]}", file=sys.stderr)
        return int(error.args[0])


def slugs() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("docker/*/card.yaml"))


def composed() -> dict[str, Any]:
    """The project, every service as Compose would run it."""
    project: dict[str, Any] = json.loads(compose("--profile", "*", "config", "--format", "json"))
    return project


def request(services: dict[str, Any], slug: str, instead: list[str]) -> dict[str, Any]:
    """What flags.py is told of a slug. Raises CannotCheck."""
    if slug not in slugs():
        raise CannotCheck(WRONG, f"there is no slug {slug!r}; there are: {', '.join(slugs())}")
    if instead and not Path(instead[0]).is_file():
        raise CannotCheck(WRONG, f"there is no file {instead[0]}")
    serve = "/tried.yaml" if instead else f"/slugs/{slug}/serve.yaml"
    return {
        "slug": slug,
        "environment": services[slug]["environment"] | {"LAUNCHER_SERVE_CONFIG": serve},
        "arguments": services[slug]["command"],
        "architectures": card(slug)["weights"]["architectures"],
    }


def card(slug: str) -> dict[str, Any]:
    facts: dict[str, Any] = yaml.safe_load((ROOT / "docker" / slug / "card.yaml").read_text())
    return facts


def ask_built(project: dict[str, Any], slug: str = "") -> int:
    """Asks the vLLM inside the slug's own image. Raises CannotCheck."""
    asked = request(project["services"], slug, [])
    image = f"{project['name']}-{slug}"
    said(MISSING, ["docker", "image", "inspect", image])
    return ask(image, None, [asked], [])


def built_image(project: dict[str, Any]) -> str:
    """The name of the image that the parser runs in, as Compose names what it builds. Raises CannotCheck."""
    compose("--profile", PARSER, "build", "--quiet", PARSER)
    return f"{project['name']}-{PARSER}"


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
    said(MISSING, [*words, "--dest", str(WHEELS), "--requirement", str(wanted)])


def ask(image: str, wheel: Path | None, asked: list[dict[str, Any]], instead: list[str]) -> int:
    """Runs flags.py in a container without network, rights or weights; returns its exit code."""
    mounts = {ROOT / "docker": "/slugs", ROOT / "scripts/flags.py": "/flags.py"}
    mounts |= {wheel: f"/{wheel.name}"} if wheel else {}
    mounts |= {Path(instead[0]).resolve(): "/tried.yaml"} if instead else {}
    words = ["docker", "run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=ALL"]
    words += ["--security-opt=no-new-privileges", "--tmpfs=/tmp:mode=1777"]
    words += ["--env=PYTHONPATH=/slugs", "--env=VLLM_LOGGING_LEVEL=ERROR"]
    words += [f"--volume={here}:{there}:ro" for here, there in mounts.items()]
    words += ["--entrypoint=python3", image, "/flags.py", *([f"/{wheel.name}"] if wheel else [])]
    code = subprocess.run(words, input=json.dumps(asked), text=True).returncode
    return {0: 0, ONE_REFUSED: REFUSED}.get(code, MISSING)


def compose(*words: str) -> str:
    """What `docker compose` prints. Raises CannotCheck."""
    return said(MISSING, ["docker", "compose", *words])


def said(code: int, words: list[str]) -> str:
    """A program's output. Raises CannotCheck with `code` and the program's last line if it fails."""
    try:
        done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True)
    except OSError as error:
        raise CannotCheck(MISSING, f"{words[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotCheck(code, f"{' '.join(words[:4])} ... failed: {last}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
