"""What the weights volume holds, a line for each slug.

usage: python3 -m model_cache.inventory [slugs]     slugs: their names alone
"""

import os
import sys
from pathlib import Path

from model_cache import ready


def lines(root: Path) -> list[str]:
    """A line for each slug that has been linked to a snapshot below *root*, in the slugs' order."""
    return [_line(link) for link in _links(root)]


def names(root: Path) -> list[str]:
    """The slugs that have been linked to a snapshot below *root*."""
    return [link.name for link in _links(root)]


def _links(root: Path) -> list[Path]:
    return sorted(root.glob("slugs/[a-z0-9]*"))


def _line(link: Path) -> str:
    snapshot = link.resolve()
    found = ready.read(snapshot)
    if found is None:
        return f"{link.name}: not verified: docker compose up {link.name}-weights"
    changed = found.changed(snapshot)
    trust = "as weights.lock says" if found.locked else "trusted at first use"
    state = f"{len(changed)} files have changed since" if changed else "unchanged since"
    return (
        f"{link.name}: {found.repo} at {found.revision}, {found.bytes / 1e9:.1f} GB in {len(found.files)} files, "
        f"digest {snapshot.name}, {trust}, verified {found.published_at}, {state}"
    )


def main() -> None:
    """Print the lines, or one that says that there are none."""
    root = Path(os.environ.get("MODEL_CACHE_DIR") or "/weights")
    if sys.argv[1:] == ["slugs"]:
        sys.stdout.writelines(f"{name}\n" for name in names(root))
        return
    found = lines(root) or [f"{root} holds no weights yet: docker compose up <slug>-weights"]
    sys.stdout.writelines(f"{line}\n" for line in found)


if __name__ == "__main__":
    main()
