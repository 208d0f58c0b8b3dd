"""Lists what the locks install, as CycloneDX, and asks whether any of it is known to be vulnerable.

usage: supply.py sbom     writes out/sbom/<set>.cdx.json for each set of packages; asks nobody
       supply.py audit    asks pip-audit's service about every lock of this repository
Exit codes: 0 nothing found · 1 a package is vulnerable · 2 tests/supply/ignored has a wrong line · 3 the service could
not be asked, so nothing is known · 4 a tool failed.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "out" / "supply" / "bin"  # what scripts/sbom and scripts/audit install
SBOMS = ROOT / "out" / "sbom"
IGNORED = ROOT / "tests" / "supply" / "ignored"
VULNERABLE, WRONG, UNKNOWN, FAILED = 1, 2, 3, 4
SETS = {  # what is installed together; vLLM and torch of the workers come from the cards
    "gateway": "gateway/requirements.lock",
    "model-cache": "model-cache/requirements.lock",
    "check": "docker/cards/requirements.lock",
    "dev": "requirements-dev.lock",
}
LINE = re.compile(r"(?P<id>[A-Z]+-[A-Za-z0-9-]+)\s+(?P<until>\d{4}-\d\d-\d\d)\s+(?P<reason>\S.*)")


class Failure(Exception):
    """What ends the program; the arguments are the exit code and the line to print."""


@dataclass(frozen=True)
class Ignored:
    """One line of the ignore list."""

    id: str
    until: date
    reason: str


def main(words: list[str]) -> int:
    try:
        match words:
            case ["sbom"]:
                return sbom()
            case ["audit"]:
                return audit(datetime.now(UTC).date())
    except Failure as failure:
        print(f"supply: {failure.args[1]}", file=sys.stderr)
        return int(failure.args[0])
    print(__doc__, file=sys.stderr)
    return WRONG


# the list of packages


def sbom() -> int:
    """Write one file for each set of packages. Raises Failure."""
    SBOMS.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path] = {}  # by their packages: most workers have the same
    for name, requirements in {**locked_sets(), **worker_sets()}.items():
        target = SBOMS / f"{name}.cdx.json"
        if requirements in made:
            shutil.copyfile(made[requirements], target)
        else:
            describe(requirements, target)
            made[requirements] = target
        print(f"sbom: {target.relative_to(ROOT)}, {len(components(target))} packages")
    return 0


def describe(requirements: str, target: Path) -> None:
    """Write the CycloneDX file of one set. Raises Failure."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        words = ["cyclonedx-py", "requirements", "--output-format", "JSON", "--output-reproducible"]
        run([*words, "--no-validate", "--output-file", str(target), file.name])


def locked_sets() -> dict[str, str]:
    return {name: (ROOT / lock).read_text() for name, lock in SETS.items()}


def worker_sets() -> dict[str, str]:
    """The requirements of each slug's image: its lock, and what its card pins."""
    return {
        f"worker-{card.parent.name}": lock_of(card).read_text() + pins_of(card)
        for card in sorted(ROOT.glob("docker/*/card.yaml"))
    }


def lock_of(card: Path) -> Path:
    """The lock that a slug's image installs, as its Dockerfile names it."""
    found = re.search(r"locks/vllm-[\w.-]+\.lock", (card.parent / "Dockerfile").read_text())
    if found is None:
        raise Failure(WRONG, f"{card.parent / 'Dockerfile'} names no docker/locks/vllm-*.lock")
    return ROOT / "docker" / found[0]


def pins_of(card: Path) -> str:
    """vLLM and torch, as pip is told of them; their indexes, which differ between hosts, are left out."""
    told = run([sys.executable, str(ROOT / "docker" / "pin.py"), str(card)])
    return "".join(f"{line}\n" for line in told.splitlines() if not line.startswith("--"))


def components(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text()).get("components", [])
    return found


# vulnerabilities


def audit(today: date) -> int:
    """Ask about every lock; print what is vulnerable and not ignored. Raises Failure."""
    ignored = read_ignored(IGNORED.read_text())
    for entry in ignored.values():
        if entry.until < today:
            print(f"audit: the line for {entry.id} in {IGNORED.relative_to(ROOT)} ended on {entry.until}")
    reports = {lock: report_of(lock) for lock in sorted(pip_locks())}
    found = [line for lock, report in reports.items() for line in vulnerable(lock, report, ignored, today)]
    skipped = sorted({one["name"] for report in reports.values() for one in report if "skip_reason" in one})
    for line in found:
        print(line)
    if skipped:
        print(
            f"audit: NOTHING IS KNOWN of {len(skipped)} packages, of which the service knows nothing ({skipped[0]} "
            "is the first); if it is a mirror, run make audit where the real one can be reached"
        )
    if not found and not skipped:
        print(f"audit: nothing known against the packages of {len(reports)} locks")
    return VULNERABLE if found else UNKNOWN if skipped else 0


def pip_locks() -> Iterator[Path]:
    """Every lock for pip; a slug's weights.lock is another thing."""
    for path in ROOT.glob("**/*.lock"):
        parts = path.relative_to(ROOT).parts
        if path.name != "weights.lock" and parts[0] not in (".venv", "out") and "node_modules" not in parts:
            yield path


def report_of(lock: Path) -> list[dict[str, Any]]:
    """What pip-audit says of each package of a lock. Raises Failure if its service cannot be asked."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [str(TOOLS / "pip-audit"), "--disable-pip", "--require-hashes", "--progress-spinner=off"]
        words += ["--requirement", str(lock), "--format=json", f"--output={report}"]
        done = subprocess.run(words, capture_output=True, text=True)
        try:
            dependencies: list[dict[str, Any]] = json.loads(report.read_text())["dependencies"]
        except (OSError, ValueError, KeyError) as error:
            raise Failure(
                UNKNOWN,
                "NOTHING IS KNOWN: pip-audit could not ask its service about "
                f"{lock.relative_to(ROOT)}: {last_line(done.stderr)}. Run make audit where it can be reached",
            ) from error
    return dependencies


def vulnerable(
    lock: Path, report: Iterable[Mapping[str, Any]], ignored: Mapping[str, Ignored], today: date
) -> Iterator[str]:
    """A line for each vulnerability of a lock that no line of the ignore list passes over today."""
    for package in report:
        for one in package.get("vulns", ()):
            names = {one["id"], *one.get("aliases", ())}
            if any(name in ignored and ignored[name].until >= today for name in names):
                continue
            mended = ", ".join(one.get("fix_versions", ())) or "no version"
            yield (
                f"audit: {lock.relative_to(ROOT)}: {package['name']} {package['version']}: {one['id']} "
                f"({', '.join(sorted(names - {one['id']})) or 'no other name'}); mended in {mended}"
            )


def read_ignored(text: str) -> dict[str, Ignored]:
    """The ignore list, by id. Raises Failure for a line that is wrong."""
    entries = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = LINE.fullmatch(line.strip())
        try:
            if found is None:
                raise ValueError("write <id> <YYYY-MM-DD> <reason>")
            entries[found["id"]] = Ignored(found["id"], date.fromisoformat(found["until"]), found["reason"])
        except ValueError as error:
            raise Failure(WRONG, f"tests/supply/ignored:{number}: {error}") from error
    return entries


def run(words: list[str]) -> str:
    """A tool's output. Raises Failure with its last line if it fails."""
    program = TOOLS / words[0]
    done = subprocess.run(
        [str(program) if program.exists() else words[0], *words[1:]], capture_output=True, text=True
    )
    if done.returncode:
        raise Failure(FAILED, f"{words[0]} failed: {last_line(done.stderr)}")
    return done.stdout


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
