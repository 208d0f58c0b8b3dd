"""`scripts/verify` up to the point where Transformers is needed: what it refuses before it loads anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.launcher.published import FILES, publish

ROOT = Path(__file__).parents[3]
SLUG = "fake-1p0b"
SETTING, NOT_READY, MEMORY, NOT_LOADED = 2, 3, 4, 5


def verify(weights: Path, **env: str) -> tuple[int, str]:
    """The exit code and the one line of the program that runs in the worker image."""
    own = {
        "PYTHONPATH": str(ROOT / "docker"),
        "LAUNCHER_SLUG": SLUG,
        "LAUNCHER_WEIGHTS_DIR": str(weights),
        **env,
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/verify.py")],
        env={"PATH": os.environ["PATH"], **own},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1, lines
    return done.returncode, lines[0]


def test_weights_not_published(tmp_path: Path) -> None:
    """An empty volume: the line names the command that fetches the weights."""
    code, line = verify(tmp_path)
    assert (code, f"docker compose up {SLUG}-weights" in line) == (NOT_READY, True)


def test_byte_flipped(tmp_path: Path) -> None:
    """A file whose bytes are not READY.json's is refused by name, as the launcher would."""
    path = publish(tmp_path, SLUG) / "sub/model.safetensors"
    path.write_bytes(b"\xff" + FILES["sub/model.safetensors"][1:])
    code, line = verify(tmp_path)
    assert (code, f"{path} is corrupt" in line) == (NOT_READY, True)


def test_slug_not_set(tmp_path: Path) -> None:
    """Without a slug the line names the variable."""
    code, line = verify(tmp_path, LAUNCHER_SLUG="")
    assert (code, "LAUNCHER_SLUG is not set" in line) == (SETTING, True)


def test_more_weights_than_memory(tmp_path: Path) -> None:
    """Weights that cannot fit are refused before a byte is loaded; both numbers are said."""
    snapshot = publish(tmp_path, SLUG, {"config.json": b"{}", "huge.safetensors": b"x"})
    huge, size = snapshot / "huge.safetensors", 1 << 43
    try:
        os.truncate(huge, size)
    except OSError:
        pytest.skip("this file system keeps no sparse file of 8 TiB")
    grow(snapshot, "huge.safetensors", size, tmp_path)
    code, line = verify(tmp_path)
    assert (code, f"{size + 2:,} bytes" in line) == (MEMORY, True)


def test_no_library_and_no_model(tmp_path: Path) -> None:
    """What Transformers cannot load, or where it is not installed, ends in one line with a code of its own."""
    publish(tmp_path, SLUG)
    config = tmp_path / "serve.yaml"
    config.write_text("trust-remote-code: true\n")
    code, line = verify(tmp_path, LAUNCHER_SERVE_CONFIG=str(config))
    assert (code, line.startswith(f"verify: {SLUG}: Transformers cannot run it: ")) == (NOT_LOADED, True)


def grow(snapshot: Path, name: str, size: int, weights: Path) -> None:
    """Makes READY.json say that the file was published with that size, under the digest that goes with it."""
    from launcher.resources.weights import File, Stamp, manifest_digest

    ready = json.loads((snapshot / "READY.json").read_text())
    entry = next(one for one in ready["files"] if one["path"] == name)
    entry["size"], entry["mtime_ns"] = size, (snapshot / name).stat().st_mtime_ns
    files = tuple(
        File(one["path"], one["sha256"], Stamp(one["size"], one["mtime_ns"], one["inode"]))
        for one in ready["files"]
    )
    ready["digest"] = manifest_digest(files)
    (snapshot / "READY.json").write_text(json.dumps(ready))
    moved = snapshot.rename(snapshot.with_name(ready["digest"][:16]))
    link = weights / "slugs" / SLUG
    link.unlink()
    link.symlink_to(Path("..") / moved.relative_to(weights))


@pytest.mark.parametrize(
    ("words", "what"),
    [((), "there is no slug"), (("no-such-model",), "there is no slug 'no-such-model'; there are: ")],
)
def test_words_that_mean_nothing(words: tuple[str, ...], what: str) -> None:
    """scripts/verify without a slug, or with one that is not there, ends before Docker is asked."""
    done = subprocess.run([ROOT / "scripts/verify", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == SETTING
    assert what in done.stderr
