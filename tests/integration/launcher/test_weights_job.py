"""The launcher and the weights job mean the same by a published snapshot."""

from __future__ import annotations

import hashlib
from pathlib import Path

from launcher.resources.weights import Check, File, find
from model_cache.manifest.listing import ListedFile, accept
from model_cache.manifest.lockfile import Lockfile
from model_cache.storage.verify import verify
from model_cache.storage.volume import Volume
from tests.integration.launcher.harness import SLUG

# paths whose order as text differs from their order as path components
FILES = {
    "config.json": b"{}",
    "a-b/model.safetensors": b"\x01" * 1000,
    "a/model.safetensors": b"\x02" * 1000,
    "读我.md": "说明".encode(),
}


def test_what_the_weights_job_publishes_the_launcher_serves_without_hashing(tmp_path: Path) -> None:
    """Digest, directory, link and every recorded stat agree."""
    volume = Volume(tmp_path, "owner/name", SLUG)
    volume.prepare()
    listing = [ListedFile(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in FILES.items()]
    manifest = accept(listing, trusts_code=False).manifest
    staging = volume.stage(manifest)
    for path, data in FILES.items():
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
        (staging / path).write_bytes(data)
    stamps = verify(staging, manifest.files, lambda *_: None).stamps
    published = volume.publish(Lockfile("owner/name", "master", manifest), stamps, locked=False)
    hashed: list[File] = []
    found = find(tmp_path, SLUG)
    Check(hashed.append).run(found)
    assert (found.directory, found.digest) == (published, manifest.digest)
    assert {file.path for file in found.files} == set(FILES)
    assert hashed == []
