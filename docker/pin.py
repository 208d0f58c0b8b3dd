"""Prints what a card pins as pip requirements with hashes, or checks a folder of wheels against it.

usage: pin.py [--vllm REQUIREMENT] [--index URL] [--have DIRECTORY] CARD

Where pip takes a file from (a wheelhouse, an index, a URL) is its caller's choice; other bytes it refuses. A nightly is
found in its commit's folder of URL, or of the vLLM project's own nightly index where no URL is given.
Exit codes: 0 · 2 the card or the requirement is wrong · 3 DIRECTORY lacks a pinned wheel, or holds other bytes.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASHED = re.compile(r"--hash=sha256:[0-9a-f]{64}(\s|$)")
_MOST_BYTES = 256 * 1024
_DEEPEST = 20
_LONGEST_NUMBER = 30
COMMIT = re.compile(r"[0-9a-f]{40}")
_NIGHTLY_INDEX = "https://wheels.vllm.ai"
_WHEEL = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)-[^-]+-[^-]+-[^-]+\.whl")


class CardError(Exception):
    """The card cannot be built from; the text is the one line to print."""


class WheelError(Exception):
    """A pinned wheel is not there, or is another file; the text is the one line to print."""


@dataclass(frozen=True)
class Wheel:
    """A pinned distribution: its full version as its files' names spell it, and their contents, by name.

    Several files are the same build for several Pythons; one of them is installed. `commit` is empty for torch.
    """

    distribution: str
    version: str
    files: Mapping[str, str]
    commit: str = ""

    @property
    def requirement(self) -> str:
        """A line of a pip requirements file that only these bytes satisfy."""
        hashes = " ".join(f"--hash=sha256:{sha256}" for sha256 in self.files.values())
        return f"{self.distribution}=={self.version} {hashes}"


def read(card: Path) -> tuple[Wheel, Wheel]:
    """The pinned wheels of vLLM and torch. Raises CardError naming the card and what is wrong with it."""
    try:
        with card.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        facts = _parsed(content)
    except OSError as error:
        raise CardError(f"{card} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:  # such as a date that is none
        raise CardError(f"{card} is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        pins = _section(facts, "pin")
        return _wheel(pins, "vllm"), _wheel(pins, "torch")
    except CardError as error:
        raise CardError(f"{card}: {error}") from error


def _parsed(content: bytes) -> object:
    """Plain YAML, looked through before anything is made of it. Raises YAMLError, ValueError or ArithmeticError."""
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
    text, depth, resolver = content.decode(), 0, yaml.resolver.Resolver()
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise ValueError("aliases and tags are not taken")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_NUMBER:
            kind = resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
            if kind.endswith((":int", ":float")):
                raise ValueError(f"a number has more than {_LONGEST_NUMBER} characters")
    return yaml.safe_load(text)


def _wheel(pins: Mapping[str, object], part: str) -> Wheel:
    facts = _section(pins, part, above="pin.")
    distribution = str(facts.get("distribution", part))
    version = _text(facts, "version", f"pin.{part}.")
    files = {_text(facts, "wheel", f"pin.{part}."): _text(facts, "sha256", f"pin.{part}.")}
    if "variants" in facts:
        variants = _section(facts, "variants", above=f"pin.{part}.")
        files |= {str(file): _text(variants, file, f"pin.{part}.variants.") for file in variants}
    spelt = {_checked(file, sha256, distribution, version, part) for file, sha256 in files.items()}
    if len(spelt) > 1:
        raise CardError(f"pin.{part} mixes builds: {', '.join(sorted(spelt))}")
    return Wheel(distribution, spelt.pop(), files, str(facts.get("commit", "")))


def _checked(file: str, sha256: str, distribution: str, version: str, part: str) -> str:
    """The full version that the file's name spells. Raises CardError if it is not that of the pin."""
    named = _WHEEL.fullmatch(file)
    if not named:
        raise CardError(f"pin.{part}.wheel is {file!r}: it must be a wheel's file name")
    if (_plain(named["name"]), named["version"].split("+")[0]) != (_plain(distribution), version):
        raise CardError(f"pin.{part}.wheel is {file!r}: that is not {distribution} {version}")
    if not _SHA256.fullmatch(sha256):
        raise CardError(f"pin.{part}.sha256 is {sha256!r}: it must be 64 lower-case hexadecimal digits")
    return named["version"]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _section(facts: object, key: str, above: str = "") -> Mapping[str, object]:
    section = facts.get(key) if isinstance(facts, dict) else None
    if not isinstance(section, dict):
        raise CardError(f"{above}{key} is missing: it must be a section")
    return section


def _text(facts: Mapping[str, object], key: str, above: str) -> str:
    value = facts.get(key)
    if not isinstance(value, str):
        raise CardError(f"{above}{key} is {value!r}: it must be a text (quote a version or hash)")
    return value


def requirements(vllm: Wheel, torch: Wheel, instead_of_vllm: str = "") -> list[str]:
    """The lines for pip; `instead_of_vllm` is a full requirement that replaces the card's. Raises CardError."""
    if instead_of_vllm and not _HASHED.search(instead_of_vllm):
        raise CardError(f"the requirement {instead_of_vllm!r} has no hash: add --hash=sha256:<64 digits>")
    return [torch.requirement, instead_of_vllm or vllm.requirement]


def indexes(vllm: Wheel, index: str) -> list[str]:
    """Lines that name the indexes to ask besides pip's own; `index` may be empty. Raises CardError."""
    if index.split() not in ([], [index]):
        raise CardError(
            f"the index {index!r} is not one address: set VLLM_WHEEL_INDEX to a URL without spaces"
        )
    if not COMMIT.fullmatch(vllm.commit):
        return [f"--extra-index-url {index}"] if index else []
    root = (index or _NIGHTLY_INDEX).rstrip("/")
    variant = "/cpu" if vllm.version.endswith("cpu") else ""
    return [f"--extra-index-url {one}" for one in (index, f"{root}/{vllm.commit}{variant}") if one]


def check(directory: Path, wheel: Wheel) -> None:
    """Raises WheelError unless `directory` holds one of the pin's files, and those it holds byte for byte."""
    there = [file for file in wheel.files if (directory / file).exists()]
    if not there:
        raise WheelError(f"{directory} has no {' and no '.join(wheel.files)}")
    for file in there:
        found = _digest(directory / file)
        if found != wheel.files[file]:
            raise WheelError(f"{directory / file} is another file: sha256 {found}, not {wheel.files[file]}")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WheelError(f"{path} cannot be read: {error.strerror}") from error


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="pin.py", description=__doc__.splitlines()[0])
    parser.add_argument("card", type=Path, metavar="CARD")
    parser.add_argument("--vllm", default="", metavar="REQUIREMENT", help="instead of the card's vLLM")
    parser.add_argument(
        "--index", default="", metavar="URL", help="one more index, and the one that has nightlies"
    )
    parser.add_argument("--have", type=Path, metavar="DIRECTORY", help="only check that the wheels are there")
    asked = parser.parse_args(words)
    try:
        wheels = read(asked.card)
        if asked.have:
            for wheel in wheels:
                check(asked.have, wheel)
        else:
            lines = indexes(wheels[0], asked.index) + requirements(*wheels, asked.vllm)
            sys.stdout.writelines(f"{line}\n" for line in lines)
    except (CardError, WheelError) as error:
        sys.stderr.write(f"pin.py: {error}\n")
        return 2 if isinstance(error, CardError) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
