"""What the weights volume holds, a line for each slug: `make weights`. Reads only."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from model_cache.manifest.document import WrongDocumentError
from model_cache.manifest.manifest import READY
from model_cache.settings import VolumeSettings, load
from model_cache.storage import ready
from model_cache.storage.ready import Ready
from model_cache.storage.snapshot_lock import is_held
from model_cache.storage.volume import explained
from model_cache.telemetry.report import human_bytes


def lines(root: Path) -> list[str]:
    """Return a line for each slug below *root*, sorted, then one for each snapshot that no slug links to."""
    links = _links(root)
    linked = {os.path.realpath(link) for link in links}
    others = sorted(
        path
        for path in root.glob("models/*/*/*")
        if path.is_dir() and not path.is_symlink() and os.path.realpath(path) not in linked
    )
    return [*map(_line, links), *map(_other, others)]


def names(root: Path) -> list[str]:
    """Return the slugs that have been linked to a snapshot below *root*: `make verify-weights` goes through them."""
    return [link.name for link in _links(root)]


def _links(root: Path) -> list[Path]:
    """Return the slugs' links below *root*; drafts of them begin with a dot and are left out."""
    return sorted(root.glob("slugs/[a-z0-9]*"))


def _line(link: Path) -> str:
    """Return the line for a slug, whose *link* leads to its snapshot, or to none any more."""
    snapshot = Path(os.path.realpath(link))
    if (found := _record(snapshot)) is None or isinstance(found, str):
        fault = f" ({found})" if found else ""
        return f"{link.name}: not verified{fault}: docker compose up {link.name}-weights"
    return _describe(link.name, snapshot, found)


def _record(snapshot: Path) -> Ready | str | None:
    """Return what READY.json says, or why it cannot be trusted; None where there is none."""
    try:
        return ready.checked(snapshot)
    except (OSError, WrongDocumentError) as error:
        return f"{READY}: {error}"


def _other(snapshot: Path) -> str:
    """Return the line for a snapshot that no slug links to, which `prune` may remove if no worker holds it."""
    found = _record(snapshot)
    if isinstance(found, Ready):
        return _describe("no slug", snapshot, found)
    fault = f" ({found})" if found else ""
    return f"no slug: {snapshot.parent.name}, digest {snapshot.name}, not verified{fault}, {_use(snapshot)}"


def _use(snapshot: Path) -> str:
    """Return the words of a line on whether a worker of this host (or `export`) has the snapshot locked."""
    return "held by a worker" if is_held(snapshot) else "held by no worker"


def _describe(whose: str, snapshot: Path, found: Ready) -> str:
    """Return the line for a snapshot with a record: whose it is, what it holds, whether that changed, who uses it."""
    changed = found.changed(snapshot)
    trust = "as weights.lock says" if found.locked else "trusted at first use"
    state = f"{len(changed)} files have changed since" if changed else "unchanged since"
    return (
        f"{whose}: {found.repo} at {found.revision}, {human_bytes(found.bytes)} in {len(found.files)} files, "
        f"digest {snapshot.name}, {trust}, verified {found.published_at}, {state}, {_use(snapshot)}"
    )


def run(given: Namespace) -> None:
    """Print the lines, or one that says that there are none; or the slugs' names alone. Raises JobError."""
    root = load(VolumeSettings).dir
    with explained(root):
        empty = [f"{root} holds no weights yet: docker compose up <slug>-weights"]
        found = names(root) if given.only else lines(root) or empty
        sys.stdout.writelines(f"{line}\n" for line in found)
