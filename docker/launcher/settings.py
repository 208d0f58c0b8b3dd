"""Settings of the launcher: a frozen value read once from `LAUNCHER_*` variables (docs/configuration.md). An empty
value means the default, as Compose hands one over for a variable that is not set. `LAUNCHER_COMMAND` is split as by a
shell; one that takes its model by option works too: `python3 -m vllm.entrypoints.openai.api_server --model`."""

import math
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

STATE_DIR = "/run/octet"  # default of `LAUNCHER_STATE_DIR`, which `admission` needs inside vLLM, too
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
_MAX_S = 1e6  # longest time that a setting may have, in seconds (11 days): more is taken for a mistake


class Capability(StrEnum):
    """What a model can do, and so what its warm-up sends (`LAUNCHER_WARMS`)."""

    TEXT = "text"
    TOOLS = "tools"
    IMAGES = "images"


class SettingsError(Exception):
    """A variable is missing or invalid; the text is the one line to print."""


@dataclass(frozen=True)
class Settings:
    """All settings, read once at the start. Times are seconds; docs/configuration.md explains each."""

    slug: str
    weights_dir: Path
    serve_config: Path
    state_dir: Path
    command: tuple[str, ...]
    port: int
    stop_grace_s: float
    backoff_s: float
    hang_after_s: float
    warm_s: float
    warms: tuple[Capability, ...]
    gpus: int
    gpu_slots_dir: Path
    cache_dir: Path
    ops_port: int

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read every `LAUNCHER_*` variable, as the first thing of all. Raises `SettingsError` for one that is wrong."""
        given = _Variables(environ)
        return cls(
            slug=given.slug("LAUNCHER_SLUG"),
            weights_dir=given.path("LAUNCHER_WEIGHTS_DIR", "/weights"),
            serve_config=given.path("LAUNCHER_SERVE_CONFIG", "/etc/octet/serve.yaml"),
            state_dir=given.path("LAUNCHER_STATE_DIR", STATE_DIR),
            command=given.command("LAUNCHER_COMMAND", "vllm serve"),
            port=given.whole("LAUNCHER_PORT", "8000", "a port number", range(1, 65536)),
            stop_grace_s=given.seconds("LAUNCHER_STOP_GRACE_S", "60"),
            backoff_s=given.seconds("LAUNCHER_BACKOFF_S", "10"),
            hang_after_s=given.seconds("LAUNCHER_HANG_AFTER_S", "300", or_never=True),
            warm_s=given.seconds("LAUNCHER_WARM_S", "600", or_never=True),
            warms=given.capabilities("LAUNCHER_WARMS", "text"),
            gpus=given.whole("LAUNCHER_GPUS", "0", "a number of GPUs", range(1025)),  # 0: claims none
            gpu_slots_dir=given.path("LAUNCHER_GPU_SLOTS_DIR", "/gpu-slots"),
            cache_dir=given.path("LAUNCHER_CACHE_DIR", "/cache"),
            ops_port=given.whole("LAUNCHER_OPS_PORT", "8003", "a port number", range(65536)),  # 0: none
        )

    @property
    def state_file(self) -> Path:
        """The state file (`status.state`), which the worker writes and its health check and ops port read."""
        return self.state_dir / "state.json"

    @property
    def history_file(self) -> Path:
        """The file with how long earlier starts took (`status.history`)."""
        return self.cache_dir / "octet-starts.json"


@dataclass(frozen=True)
class _Variables:
    """The environment, for `Settings.from_environ`. Each method returns the variable `name`, or `default` if that is
    missing or empty, as the type that the method is named after. Raises `SettingsError` for any other text."""

    environ: Mapping[str, str]

    def text(self, name: str, default: str) -> str:
        return self.environ.get(name) or default

    def slug(self, name: str) -> str:
        text = self.text(name, "")
        if not text:
            raise SettingsError(f"{name} is not set: set it to the slug this worker serves")
        if not _SLUG.fullmatch(text):
            raise _wrong(name, text, "a slug: lower-case letters, digits and hyphens")
        return text

    def path(self, name: str, default: str) -> Path:
        return Path(self.text(name, default))

    def command(self, name: str, default: str) -> tuple[str, ...]:
        """Return the words of a command line, split as by a shell."""
        text = self.text(name, default)
        try:
            words = shlex.split(text)
        except ValueError:
            words = []  # refused below, like an empty text
        if not words:
            raise _wrong(name, text, "a command line with matching quotes; it must name a program")
        return tuple(words)

    def capabilities(self, name: str, default: str) -> tuple[Capability, ...]:
        """Return the words of a list with blanks; none if it is all blank, which turns the warm-up off."""
        text = self.text(name, default)
        try:
            return tuple(Capability(word) for word in text.split())
        except ValueError:
            raise _wrong(name, text, f"some of {', '.join(Capability)}") from None

    def whole(self, name: str, default: str, meaning: str, allowed: range) -> int:
        """Return a number in the `allowed` range; `meaning` says in the error what it is."""
        text = self.text(name, default)
        try:
            value = int(text)
        except ValueError:
            value = -1  # in no allowed range
        if value not in allowed:
            raise _wrong(name, text, f"{meaning} from {allowed[0]} to {allowed[-1]}")
        return value

    def seconds(self, name: str, default: str, *, or_never: bool = False) -> float:
        """Return seconds more than 0; `or_never` allows 0, which means never."""
        text = self.text(name, default)
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan  # fails the comparison below
        if not (0 < seconds <= _MAX_S or (or_never and seconds == 0)):
            never = ", or 0 for never" if or_never else ""
            raise _wrong(name, text, f"a number of seconds, more than 0 and at most {_MAX_S:g}{never}")
        return seconds


def _wrong(name: str, text: str, wanted: str) -> SettingsError:
    """Return the error to raise for a variable whose value `text` is not what is `wanted`."""
    return SettingsError(f"{name} is {text!r}: it must be {wanted}")
