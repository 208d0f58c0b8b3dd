"""The options that may be tried, each with its values and conditions, from a YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Value = str | int | float | bool | None  # None: without the option
Changes = Mapping[str, Value]  # what differs from serve.yaml, by the option's name
WORDS = ("gpu", "cpu", "speculative", "compiled")


class OptionsError(Exception):
    """The file of options is wrong; the text is the one line to print."""


@dataclass(frozen=True)
class Option:
    """One option: `values` to try; with `unset` they are a ladder, on which vLLM's own choice stands there, and which
    is climbed step by step. A dot in the name leads into an option that is a JSON object. `shipped`: serve.yaml's."""

    name: str
    values: tuple[Value, ...]
    shipped: Value = None
    unset: int | float | None = None
    first: str = "up"

    @property
    def is_ladder(self) -> bool:
        """Return whether the values have an order, so that a worse step says something of those behind it."""
        return self.unset is not None

    def ladder(self) -> list[int | float]:
        """Return all steps in order, serve.yaml's own or vLLM's choice among them."""
        steps = {value for value in self.values if isinstance(value, int | float)}
        return sorted(steps | {self.step(self.shipped)})

    def step(self, value: Value) -> int | float:
        """Return where on the ladder a value stands."""
        assert self.unset is not None
        return value if isinstance(value, int | float) else self.unset

    def value_at(self, step: int | float) -> Value:
        """Return the value for a step; on the shipped step that of serve.yaml, which may be none at all."""
        return self.shipped if step == self.step(self.shipped) else step


def load(path: Path, shipped: Mapping[str, Any], *, gpus: int, lossy: bool) -> list[Option]:
    """Read the options that apply to a slug with this serve.yaml. Raises OptionsError."""
    try:
        entries = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionsError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list):
        raise OptionsError(f"{path} must be a list of options")
    holds = {
        "gpu": gpus > 0,
        "cpu": gpus == 0,
        "speculative": "speculative-config" in shipped,
        "compiled": not shipped.get("enforce-eager"),
    }
    found = [_option(path, at, entry, shipped, holds, lossy) for at, entry in enumerate(entries, 1)]
    return [option for option in found if option is not None]


def _option(
    path: Path, at: int, entry: object, shipped: Mapping[str, Any], holds: Mapping[str, bool], lossy: bool
) -> Option | None:
    """Return one entry; None if its conditions do not hold. Raises OptionsError."""
    said = entry if isinstance(entry, dict) else {}
    if wrong := _wrong(said):
        raise OptionsError(f"{path}: entry {at}: {wrong}")
    if (said.get("lossy") and not lossy) or not all(holds[word] for word in said.get("only", ())):
        return None
    value = current(shipped, said["option"])
    return Option(said["option"], tuple(said["values"]), value, said.get("unset"), said.get("first", "up"))


def _wrong(entry: Mapping[str, Any]) -> str:
    """Return what about an entry is not as options.yaml describes; empty if nothing."""
    if not isinstance(entry.get("option"), str) or not entry["option"]:
        return (
            "it must be a mapping with `option`, the name of one of vLLM's options without dashes before it"
        )
    if unknown := set(entry) - {"option", "only", "unset", "first", "lossy", "values"}:
        return f"{', '.join(map(str, unknown))} is not known"
    values = entry.get("values")
    if not isinstance(values, list) or not values or not all(isinstance(one, Value) for one in values):
        return "`values` must be a list of texts, numbers, true, false or null"
    if not isinstance(entry.get("only", []), list) or set(map(str, entry.get("only", []))) - set(WORDS):
        return f"`only` must be a list of some of {', '.join(WORDS)}"
    if entry.get("first", "up") not in ("up", "down"):
        return "`first` must be up or down"
    numbers: Sequence[Any] = [*values, entry["unset"]] if "unset" in entry else []
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
        return "with `unset`, it and all `values` must be numbers"
    return ""


def current(shipped: Mapping[str, Any], name: str) -> Value:
    """Return an option's value in serve.yaml, also one inside of a JSON object; None if it has none."""
    found: Any = shipped
    for part in name.split("."):
        if isinstance(found, str):
            found = yaml.safe_load(found)  # JSON in a text, as serve.yaml has it
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, Value) else None
