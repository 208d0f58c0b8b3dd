"""Settings of the launcher: a frozen value read once from `LAUNCHER_*` variables.

| variable                 | default                  | meaning                                               |
|--------------------------|--------------------------|-------------------------------------------------------|
| `LAUNCHER_SLUG`          | none, required           | the slug this worker serves                           |
| `LAUNCHER_WEIGHTS_DIR`   | `/weights`               | where the weights volume is mounted, read-only        |
| `LAUNCHER_SERVE_CONFIG`  | `/etc/octet/serve.yaml`  | handed to vLLM as `--config`                          |
| `LAUNCHER_STATE_DIR`     | `/run/octet`             | writable folder (a tmpfs) for `state.json`            |
| `LAUNCHER_COMMAND`       | `vllm serve`             | program and its first words; the snapshot follows     |
| `LAUNCHER_PORT`          | `8000`                   | port vLLM listens on and the health check asks        |
| `LAUNCHER_STOP_GRACE_S`  | `60`                     | seconds from SIGTERM to SIGKILL                       |
| `LAUNCHER_BACKOFF_S`     | `10`                     | pause after a first crash; doubles up to 600 s        |
| `LAUNCHER_HANG_AFTER_S`  | `300`                    | standstill after which vLLM is killed; 0: never       |
| `LAUNCHER_WARM_S`        | `600`                    | most seconds of warming before ready; 0: none         |
| `LAUNCHER_WARMS`         | `text`                   | what is warmed, of `text`, `tools`, `images`          |
| `LAUNCHER_GPUS`          | `0`                      | GPUs this worker claims for its vLLM; 0: claims none   |
| `LAUNCHER_GPU_SLOTS_DIR` | `/gpu-slots`             | where the volume with the locks on GPUs is mounted    |
| `LAUNCHER_CACHE_DIR`     | `/cache`                 | vLLM's caches; how long earlier starts took lies there |
| `LAUNCHER_OPS_PORT`      | `8003`                   | port of `/metrics` and `/state`; 0: none              |

An empty value means the default, as Compose hands one over for a variable that is not set.
`LAUNCHER_COMMAND` is split like a shell would. A program that takes its model by option works too:
`python3 -m vllm.entrypoints.openai.api_server --model`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

STATE_DIR = "/run/octet"
"""Where the state is written, unless the environment says otherwise."""

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
_PORTS = range(1, 65536)
_LONGEST_S = 1e6
_Value = TypeVar("_Value")


class Capability(StrEnum):
    """What a model can be asked for; its card says which."""

    TEXT = "text"
    TOOLS = "tools"
    IMAGES = "images"


class SettingsError(Exception):
    """A variable is missing or means nothing; the text is the one line to print."""


@dataclass(frozen=True)
class Settings:
    """What the operator chose. Times are seconds."""

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
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read every `LAUNCHER_*` variable; raises `SettingsError` for the first that is wrong."""
        return cls(
            slug=_slug(environ.get("LAUNCHER_SLUG", "")),
            weights_dir=Path(_text(environ, "LAUNCHER_WEIGHTS_DIR", "/weights")),
            serve_config=Path(_text(environ, "LAUNCHER_SERVE_CONFIG", "/etc/octet/serve.yaml")),
            state_dir=Path(_text(environ, "LAUNCHER_STATE_DIR", STATE_DIR)),
            command=_words(environ, "LAUNCHER_COMMAND", "vllm serve"),
            port=_port(environ, "LAUNCHER_PORT", "8000"),
            stop_grace_s=_seconds(environ, "LAUNCHER_STOP_GRACE_S", "60"),
            backoff_s=_seconds(environ, "LAUNCHER_BACKOFF_S", "10"),
            hang_after_s=_seconds_or_never(environ, "LAUNCHER_HANG_AFTER_S", "300"),
            warm_s=_seconds_or_never(environ, "LAUNCHER_WARM_S", "600"),
            warms=_capabilities(environ, "LAUNCHER_WARMS", "text"),
            gpus=_gpus(environ, "LAUNCHER_GPUS", "0"),
            gpu_slots_dir=Path(_text(environ, "LAUNCHER_GPU_SLOTS_DIR", "/gpu-slots")),
            cache_dir=Path(_text(environ, "LAUNCHER_CACHE_DIR", "/cache")),
            ops_port=_port_or_none(environ, "LAUNCHER_OPS_PORT", "8003"),
        )

    @property
    def state_file(self) -> Path:
        """Where the launcher says what it is doing."""
        return self.state_dir / "state.json"

    @property
    def history_file(self) -> Path:
        """How long earlier starts took."""
        return self.cache_dir / "octet-starts.json"


def _slug(text: str) -> str:
    if not text:
        raise SettingsError("LAUNCHER_SLUG is not set: set it to the slug this worker serves")
    if not _SLUG.fullmatch(text):
        raise SettingsError(f"LAUNCHER_SLUG is {text!r}: a slug is lower-case letters, digits and hyphens")
    return text


def _text(environ: Mapping[str, str], name: str, default: str) -> str:
    return environ.get(name) or default


def _words(environ: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    text = _text(environ, name, default)
    words = _parsed(name, text, shlex.split, "a command line with matching quotes")
    if not words:
        raise SettingsError(f"{name} is {text!r}: it must name a program")
    return tuple(words)


def _capabilities(environ: Mapping[str, str], name: str, default: str) -> tuple[Capability, ...]:
    text = _text(environ, name, default)
    try:
        return tuple(Capability(word) for word in text.split())
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: it must be some of {', '.join(Capability)}") from None


def _port(environ: Mapping[str, str], name: str, default: str) -> int:
    text = _text(environ, name, default)
    port = _parsed(name, text, int, "a port number")
    if port not in _PORTS:
        raise SettingsError(f"{name} is {text!r}: it must be from 1 to 65535")
    return port


def _port_or_none(environ: Mapping[str, str], name: str, default: str) -> int:
    return 0 if _text(environ, name, default) == "0" else _port(environ, name, default)


def _gpus(environ: Mapping[str, str], name: str, default: str) -> int:
    text = _text(environ, name, default)
    count = _parsed(name, text, int, "a number of GPUs")
    if count < 0:
        raise SettingsError(f"{name} is {text!r}: it must be 0 or more")
    return count


def _seconds(environ: Mapping[str, str], name: str, default: str) -> float:
    text = _text(environ, name, default)
    seconds = _parsed(name, text, float, "a number of seconds")
    if not 0 < seconds <= _LONGEST_S:
        raise SettingsError(f"{name} is {text!r}: it must be more than 0 seconds and at most {_LONGEST_S:g}")
    return seconds


def _seconds_or_never(environ: Mapping[str, str], name: str, default: str) -> float:
    text = _text(environ, name, default)
    if _parsed(name, text, float, "a number of seconds") == 0:
        return 0.0
    return _seconds(environ, name, default)


def _parsed(name: str, text: str, parse: Callable[[str], _Value], wanted: str) -> _Value:
    try:
        return parse(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: it must be {wanted}") from None
