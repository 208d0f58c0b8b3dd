"""A wheel against what a card expects of it: by its name before it is fetched, by its contents after."""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from pins.errors import WheelError
from pins.index import Link

_COMMIT_IN_VERSION = re.compile(r"(?:^|\.)g([0-9a-f]{7,40})(?:\.|$)")
_COMMIT_INSIDE = re.compile(r"^__commit_id__ = .*'g?([0-9a-f]{7,40})'", re.MULTILINE)
_TARGET = {
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "sys_platform": "linux",
    "python_version": "3.12",
}


@dataclass(frozen=True)
class Contents:
    """What a wheel says of itself; `commit` is empty where it does not say."""

    commit: str
    requires: Sequence[Requirement]


def choose(links: Sequence[Link], distribution: str, commit: str) -> Link:
    """The one wheel for x86-64 that bears the right name. Raises WheelError if there is none, or several."""
    fitting = [link for link in links if "x86_64" in link.file.rpartition("-")[2]]
    if len(fitting) != 1:
        found = ", ".join(link.file for link in (fitting or links))
        raise WheelError(f"one {distribution} wheel for x86-64 is needed; the index lists {found}")
    version(fitting[0].file, distribution, commit)
    return fitting[0]


def version(file: str, distribution: str, commit: str = "") -> Version:
    """The version in a wheel's name. Raises WheelError if it is another distribution's or another commit's."""
    try:
        name, found, _, _ = parse_wheel_filename(file)
    except InvalidWheelFilename:
        raise WheelError(f"{file!r} is not a wheel's file name") from None
    if name != canonicalize_name(distribution):
        raise WheelError(f"{file} is not a wheel of {distribution}, which the card pins")
    named = _COMMIT_IN_VERSION.search(found.local or "")
    if named and commit and not commit.startswith(named[1]):
        raise WheelError(f"{file} was built from {named[1]}, not from {commit}")
    return found


def look_inside(path: Path, distribution: str) -> Contents:
    """Raises WheelError if the file is no wheel, or another than its name says."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            metadata = next(name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            facts, _ = parse_email(archive.read(metadata))
            source = archive.read("vllm/_version.py").decode() if "vllm/_version.py" in names else ""
    except (zipfile.BadZipFile, StopIteration, UnicodeDecodeError) as error:
        raise WheelError(f"{path.name} is not a wheel: {error or 'it holds no METADATA'}") from error
    named = version(path.name, distribution)
    name = facts.get("name", "")
    if canonicalize_name(name) != canonicalize_name(distribution) or facts.get("version", "") != str(named):
        raise WheelError(f"{path.name} says inside that it is {name} {facts.get('version', '')}")
    inside = _COMMIT_INSIDE.search(source)
    return Contents(
        inside[1] if inside else "", [Requirement(line) for line in facts.get("requires_dist", [])]
    )


def refuse_other_torch(contents: Contents, file: str, torch: str) -> None:
    """Raises WheelError unless the pinned torch, given by its full version, is one that the wheel takes."""
    needs = [one for one in contents.requires if one.name == "torch" and _counts(one)]
    for one in needs:
        if not one.specifier.contains(torch, prereleases=True):
            raise WheelError(
                f"{file} needs torch{one.specifier}, the card pins {torch}: change pin.torch first"
            )


def _counts(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**_TARGET, "extra": ""})
