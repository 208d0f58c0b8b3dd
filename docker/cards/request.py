"""What somebody means to run, as words `NAME=VALUE`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class WishError(Exception):
    """A word means nothing; the text is the one line to print."""


@dataclass(frozen=True)
class Wish:
    """None leaves it to the card. `gpu_memory_bytes` is the whole memory of one GPU."""

    tensor_parallel: int | None = None
    expert_parallel: bool | None = None
    gpus: int | None = None
    gpu_memory_bytes: float | None = None


def parse(words: Iterable[str]) -> Wish:
    """Reads TP, EP, GPUS and GPU_MEMORY_GB; an empty value leaves it to the card. Raises WishError."""
    said: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in ("TP", "EP", "GPUS", "GPU_MEMORY_GB"):
            raise WishError(f"{word!r} means nothing: use TP=, EP=, GPUS= and GPU_MEMORY_GB=")
        said[name] = value
    return Wish(
        _whole(said, "TP"), _flag(said, "EP"), _whole(said, "GPUS"), _gigabytes(said, "GPU_MEMORY_GB")
    )


def _whole(said: Mapping[str, str], name: str) -> int | None:
    value = said.get(name, "")
    if value and (not re.fullmatch(r"[0-9]{1,9}", value) or int(value) == 0):
        raise WishError(f"{name} is {value!r}: it must be a whole number from 1")
    return int(value) if value else None


def _flag(said: Mapping[str, str], name: str) -> bool | None:
    value = said.get(name, "")
    if value not in ("", "0", "1"):
        raise WishError(f"{name} is {value!r}: it must be 0 or 1")
    return value == "1" if value else None


def _gigabytes(said: Mapping[str, str], name: str) -> float | None:
    value = said.get(name, "")
    if value and (not re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", value) or float(value) == 0):
        raise WishError(f"{name} is {value!r}: it must be a number of gigabytes above 0, such as 80")
    return float(value) * 1e9 if value else None
