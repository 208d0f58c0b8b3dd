"""Builds vLLM's command line. Pure."""

from collections.abc import Sequence
from pathlib import Path

from launcher.engine import admission
from launcher.settings import Settings


def command_line(settings: Settings, snapshot: Path, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command for `process.start`. `arguments` are last, as vLLM takes the last of options given twice."""
    return (
        *settings.command,
        str(snapshot),
        *("--config", str(settings.serve_config)),
        *("--host", "0.0.0.0", "--port", str(settings.port)),  # the gateway is in another container
        *("--middleware", admission.MIDDLEWARE),
        *arguments,
    )
