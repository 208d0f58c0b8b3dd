"""Runs the job and exits, as abruptly as a kill, right before its n-th change to what lies on the volume.

Usage: python crash.py N. Exits 99 when it crashed; else as the job does.
"""

import os
import sys
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.symlink")
CRASHED = 99


def crash_before(change: int, volume: str) -> None:
    """Count the interpreter's audit events for changes below *volume*, and exit at number *change*."""
    seen = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in CHANGES and any(str(arg).startswith(volume) for arg in args):
            seen += 1
            if seen == change:
                os._exit(CRASHED)

    sys.addaudithook(watch)


if __name__ == "__main__":
    crash_before(int(sys.argv.pop(1)), os.environ["MODEL_CACHE_DIR"])
    from model_cache.__main__ import main

    sys.exit(main())
