"""Builds vLLM's command line. Pure."""

from collections.abc import Sequence
from pathlib import Path

from launcher.engine import admission
from launcher.settings import Settings


def command_line(settings: Settings, snapshot: Path, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return program, weights, serve.yaml, address, middleware, then `arguments`: the last of equal options wins."""
    return (
        *settings.command,
        str(snapshot),
        *("--config", str(settings.serve_config)),
        *("--host", "0.0.0.0", "--port", str(settings.port)),
        *("--middleware", admission.MIDDLEWARE),
        *arguments,
    )
