"""Small files that others read while they change."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Replace it in one step; raises `OSError`. Replicas may share the folder: the draft has the container's name."""
    draft = path.with_name(f".{path.name}.{socket.gethostname()}")
    draft.write_text(text, "utf-8")
    os.replace(draft, path)
