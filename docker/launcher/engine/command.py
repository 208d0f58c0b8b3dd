"""vLLM's whole command line. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.engine import admission
from launcher.settings import Settings


def command_line(settings: Settings, snapshot: Path, arguments: Sequence[str]) -> tuple[str, ...]:
    """The program and its words: weights, serve.yaml, where to listen, who is let in, then `arguments`, which win."""
    config = ("--config", str(settings.serve_config))
    listen = ("--host", "0.0.0.0", "--port", str(settings.port))
    door = ("--middleware", admission.MIDDLEWARE)
    return (*settings.command, str(snapshot), *config, *listen, *door, *arguments)
