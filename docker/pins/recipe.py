"""A slug's card and Dockerfile: what they pin, how they read with another pin, and writing both or neither."""

import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

import pin
from pins import yamltext
from pins.errors import RecipeError

_LOCK = re.compile(r"vllm-(?P<version>[\w.!]+)-(?P<variant>cpu|cuda)\.lock")


@dataclass(frozen=True)
class Pin:
    """A build of vLLM: the public version, the commit, the wheel's name and content, when it was pinned or released."""

    version: str
    commit: str
    wheel: str
    sha256: str
    date: str

    @property
    def nightly(self) -> bool:
        """Whether it came from a commit's own index: releases are pinned by a commit's first digits."""
        return pin.COMMIT.fullmatch(self.commit) is not None


@dataclass(frozen=True)
class Recipe:
    """The two files of one directory that say what its image holds, as text."""

    directory: Path
    card: str
    dockerfile: str

    @classmethod
    def read(cls, docker: Path, slug: str) -> "Recipe":
        """Raises RecipeError if there is no such slug, or its card is wrong."""
        directory = docker / slug
        if "/" in slug or not (directory / "card.yaml").is_file():
            known = ", ".join(sorted(path.parent.name for path in docker.glob("*/card.yaml")))
            raise RecipeError(f"MODEL={slug} is no slug: there are {known}")
        try:
            pin.read(directory / "card.yaml")
            texts = [(directory / name).read_text(encoding="utf-8") for name in ("card.yaml", "Dockerfile")]
        except (OSError, pin.CardError) as error:
            raise RecipeError(f"{slug} cannot be read: {error}") from error
        return cls(directory, *texts)

    @property
    def slug(self) -> str:
        return self.directory.name

    @property
    def facts(self) -> dict[str, dict[str, object]]:
        """The card's sections that are mappings; those it lacks are empty."""
        sections = {name: part for name, part in yaml.safe_load(self.card).items() if isinstance(part, dict)}
        return {"candidate": {}, "hardware": {}, "serving": {}, **sections}

    @property
    def proofs(self) -> list[dict[str, object]]:
        """What was seen to work."""
        entries = yaml.safe_load(self.card).get("proven") or []
        return [entry for entry in entries if isinstance(entry, dict)]

    @property
    def wheels(self) -> tuple[pin.Wheel, pin.Wheel]:
        """The pinned files of vLLM and torch."""
        return pin.read(self.directory / "card.yaml")

    @property
    def pin(self) -> Pin:
        """The pin as the card has it. Raises RecipeError naming what it lacks."""
        vllm = self.facts["pin"]["vllm"]
        assert isinstance(vllm, dict)
        missing = [name for name in Pin.__dataclass_fields__ if name not in vllm]
        if missing:
            raise RecipeError(
                f"{self.slug}/card.yaml: pin.vllm has no {missing[0]}: add one, it is shown by `make pins`"
            )
        return Pin(**{name: str(vllm[name]) for name in Pin.__dataclass_fields__})

    @property
    def minimum(self) -> str:
        """The oldest vLLM that may be pinned."""
        return str(self.facts["serving"].get("vllm_minimum", "0"))

    @property
    def variant(self) -> str:
        """`cpu` or `cuda`, as the lock's name has it. Raises RecipeError if the Dockerfile installs no lock."""
        found = _LOCK.search(self.dockerfile)
        if not found:
            raise RecipeError(
                f"{self.slug}/Dockerfile installs no docker/locks/vllm-<version>-<variant>.lock"
            )
        return found["variant"]

    @property
    def lock(self) -> Path:
        """The lock of all that the pinned vLLM needs, which may not exist yet."""
        return self.directory.parent / "locks" / f"vllm-{self.pin.version}-{self.variant}.lock"

    def with_pin(self, new: Pin) -> "Recipe":
        """Both files with another pin; a candidate that becomes the pin is one no more. Raises RecipeError."""
        values: dict[tuple[str, ...], str] = {
            ("pin", "vllm", name): value for name, value in asdict(new).items()
        }
        promoted = self.facts["candidate"].get("commit") == new.commit
        try:
            card = yamltext.put(self.card, values)
        except KeyError as error:
            raise RecipeError(
                f"{self.slug}/card.yaml: pin.vllm has no {error.args[0]}: add one by hand first"
            ) from None
        card = yamltext.without(card, "candidate") if promoted else card
        changed = replace(self, card=card, dockerfile=_labelled(self.slug, self.dockerfile, new))
        if changed.pin != new:
            raise RecipeError(
                f"{self.slug}/card.yaml: pin.vllm reads {changed.pin} after the change: edit it by hand"
            )
        return changed

    def write(self) -> None:
        """Replaces both files; neither, if the disk does not take both. Raises RecipeError."""
        texts = {"card.yaml": self.card, "Dockerfile": self.dockerfile}
        try:
            with tempfile.TemporaryDirectory(dir=self.directory, prefix=".bump-") as scratch:
                for name, text in texts.items():
                    Path(scratch, name).write_text(text, encoding="utf-8")
                    shutil.copymode(self.directory / name, Path(scratch, name))
                for name in texts:
                    Path(scratch, name).replace(self.directory / name)
        except OSError as error:
            raise RecipeError(f"{self.directory} cannot be written: {error.strerror}") from error


def _labelled(slug: str, dockerfile: str, new: Pin) -> str:
    """The Dockerfile with the labels and the lock of another pin. Raises RecipeError if a label is not there once."""
    labels = {f"org.octet.vllm.{name}": getattr(new, name) for name in ("version", "commit", "sha256")}
    for label, value in {"org.opencontainers.image.version": new.version, **labels}.items():
        dockerfile, count = re.subn(rf'({re.escape(label)}=)"[^"]*"', rf'\g<1>"{value}"', dockerfile)
        if count != 1:
            raise RecipeError(f'{slug}/Dockerfile has {label}="…" {count} times: it must be there once')
    return _LOCK.sub(lambda lock: f"vllm-{new.version}-{lock['variant']}.lock", dockerfile)
