"""Publishes small snapshots the way the weights job does, for the launcher's tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

FILES: Mapping[str, bytes] = {
    "config.json": b'{"architectures": ["Qwen3ForCausalLM"]}',
    "sub/model.safetensors": bytes(range(256)) * 64,
}


def publish(weights: Path, slug: str, files: Mapping[str, bytes] = FILES) -> Path:
    """Write the files, READY.json and the slug's link; returns the snapshot's directory."""
    entries = [(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    manifest = "".join(f"{path}\0{size}\0{sha256}\n" for path, size, sha256 in sorted(entries))
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    directory = weights / "models" / "owner" / "name" / digest[:16]
    described = [_write(directory, path, files[path], sha256) for path, _, sha256 in entries]
    ready = {"schema": 1, "repo": "owner/name", "digest": digest, "files": described}
    (directory / "READY.json").write_text(json.dumps(ready, indent=1))
    link = weights / "slugs" / slug
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(Path("..") / directory.relative_to(weights))
    return directory


def _write(directory: Path, path: str, data: bytes, sha256: str) -> dict[str, str | int]:
    target = directory / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    stat = target.stat()
    return {
        "path": path,
        "size": stat.st_size,
        "sha256": sha256,
        "mtime_ns": stat.st_mtime_ns,
        "inode": stat.st_ino,
    }
