"""Parses the settings `NAME=VALUE` of `cards check`, and the size that `cards host` takes. Pure."""

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cards.facts import is_gibibytes

_WHOLE = r"0*[1-9][0-9]{0,8}", "a whole number from 1"
# by name: a pattern for the value, and its description for errors
_WANTED = {
    "TP": _WHOLE,
    "EP": ("[01]", "0 or 1"),
    "GPUS": _WHOLE,
    "GPU_MEMORY_GB": (r"(?=.*[1-9])[0-9]{1,9}(\.[0-9]+)?", "a number of gigabytes above 0, such as 80"),
}


@dataclass(frozen=True)
class LayoutRequest:
    """The layout and GPUs that somebody asks about. None: as the card says. `gpu_memory_bytes` is one GPU's memory."""

    tensor_parallel: int | None = None
    expert_parallel: bool | None = None
    gpus: int | None = None
    gpu_memory_bytes: float | None = None

    @classmethod
    def of(cls, settings: Iterable[tuple[str, str]]) -> "LayoutRequest":
        """Make it from pairs that `setting` has checked. The last pair of a name counts; an empty value means None."""
        given = {name: value for name, value in dict(settings).items() if value}
        return cls(
            tensor_parallel=int(given["TP"]) if "TP" in given else None,
            expert_parallel=given["EP"] == "1" if "EP" in given else None,
            gpus=int(given["GPUS"]) if "GPUS" in given else None,
            gpu_memory_bytes=float(given["GPU_MEMORY_GB"]) * 1e9 if "GPU_MEMORY_GB" in given else None,
        )


def gibibytes(word: str) -> float | None:
    """Return a size in GiB, None for an empty word; argparse calls it. Raises ArgumentTypeError."""
    if not word:
        return None
    size = float(word) if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,9})?", word) else 0
    if not is_gibibytes(size):
        raise argparse.ArgumentTypeError(
            f"{word!r} is no size: it must be a number of GiB above 0, or empty for none"
        )
    return size


def setting(word: str) -> tuple[str, str]:
    """Split `NAME=VALUE` and check both; argparse calls it. Raises ArgumentTypeError. The value may be empty."""
    name, equals, value = word.partition("=")
    if not equals or name not in _WANTED:
        raise argparse.ArgumentTypeError(f"{word!r} means nothing: use {'=, '.join(_WANTED)}=")
    pattern, wanted = _WANTED[name]
    if value and not re.fullmatch(pattern, value):
        raise argparse.ArgumentTypeError(f"{name} is {value!r}: it must be {wanted}")
    return name, value
