"""weights.lock: read back as written, and trusted only if it is whole."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from model_cache.errors import ConfigError
from model_cache.manifest import card, lockfile
from model_cache.manifest.lockfile import Lockfile
from model_cache.manifest.manifest import Manifest, ManifestFile

FILES = (ManifestFile("config.json", 2, "ab" * 32), ManifestFile("model.safetensors", 5, "cd" * 32))
LOCK = Lockfile("owner/name", "v1", Manifest(FILES))


def written(folder: Path, text: str) -> Path:
    path = folder / "weights.lock"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_lock_survives_being_written_and_read(tmp_path: Path) -> None:
    """All of it, a file a line."""
    assert lockfile.read(written(tmp_path, LOCK.text())) == LOCK
    assert sum('"sha256"' in line for line in LOCK.text().splitlines()) == len(FILES)


def test_no_lock_is_none(tmp_path: Path) -> None:
    """A slug need not have one."""
    assert lockfile.read(tmp_path / "weights.lock") is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema": 2}, "schema"),
        ({"digest": "0" * 64}, "digest"),
        ({"bytes": 8}, "digest"),
        ({"files": []}, "no files"),
        ({"files": [{"path": "../x", "size": 1, "sha256": "ab" * 32}]}, "'..'"),
        ({"files": [{"path": "x"}]}, "size"),
        ({"files": None}, "broken"),
        ({"files": [{"path": "config.json", "size": True, "sha256": "ab" * 32}]}, "valid integer"),
        ({"files": [{"path": "config.json", "size": 2, "sha256": 7}]}, "valid string"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_broken_lock_is_named(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    """One edited by hand, or cut short, says what is wrong and what writes it anew."""
    path = written(tmp_path, json.dumps(json.loads(LOCK.text()) | change))
    with pytest.raises(ConfigError, match=r"make lock-weights") as caught:
        lockfile.read(path)
    assert word in str(caught.value)


def test_a_lock_that_is_no_json_is_named(tmp_path: Path) -> None:
    """Such as one with git's conflict marks in it."""
    with pytest.raises(ConfigError, match=r"weights\.lock is broken"):
        lockfile.read(written(tmp_path, "<<<<<<< HEAD\n" + LOCK.text()))


def test_what_changed_is_told_by_file() -> None:
    """A sign, the path, sizes and hashes."""
    new = Manifest((ManifestFile("a.json", 1, "ef" * 32), ManifestFile("config.json", 3, "ef" * 32)))
    added, changed, removed = lockfile.changes(LOCK.manifest, new)
    assert added.startswith("+ a.json: 1 bytes")
    assert changed.startswith("~ config.json: 2 -> 3 bytes")
    assert removed.startswith("- model.safetensors: 5 bytes")
    assert list(lockfile.changes(new, new)) == []


@pytest.mark.parametrize(
    ("text", "trusted"),
    [
        ("weights: {trust_remote_code: true}", True),
        ("weights: {trust_remote_code: false}", False),
        ("weights: {trust_remote_code: 'true'}", False),
        ("weights: {}", False),
    ],
)
def test_only_a_plain_yes_trusts_code(tmp_path: Path, text: str, trusted: bool) -> None:
    """What is not said is not trusted."""
    path = tmp_path / "card.yaml"
    path.write_text(text)
    assert card.trusts_code(path) is trusted
    assert not card.trusts_code(None)
    assert not card.trusts_code(tmp_path / "none.yaml")


BROKEN_CARDS = {
    "no end": b"weights: [",
    "no weights": b"slug: x",
    "no section": b"weights: 3",
    "a list": b"- weights",
    "empty": b"",
    "deep": b"weights: " + b"[" * 5000,
    "deep in lines": b"\n".join(b" " * n + b"a:" for n in range(500)),
    "a bomb of aliases": b"a: &a [x, x]\nweights: &b [*a, *a]\n",
    "a bomb of merges": b"a: &a {x: 1}\nweights: {<<: [*a, *a]}\n",
    "a loop": b"weights: &a {b: *a}\n",
    "large": b"weights: {x: " + b"x" * 300_000 + b"}",
    "no UTF-8": b"weights: {x: \xff}",
    "a zero byte": b"weights: {x: \0}",
    "a date that is none": b"weights: {x: 2026-99-99}",
    "digits": b"weights: {x: " + b"9" * 5000 + b"}",
    "no number": b'weights: {x: !!int ""}',
    "an object": b"weights: !!python/object/apply:os.getpid []",
}


@pytest.mark.parametrize("name", BROKEN_CARDS)
def test_a_broken_card_is_named(tmp_path: Path, name: str) -> None:
    """In one line. It says nothing, so nothing is decided by it."""
    path = tmp_path / "card.yaml"
    path.write_bytes(BROKEN_CARDS[name])
    with pytest.raises(ConfigError, match="is no card") as caught:
        card.trusts_code(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("number", ["1" + ":0" * 200 + ".0", "1" + ":0" * 100_000, "9" * 31])
def test_a_number_without_end_is_told_before_anything_is_made_of_it(tmp_path: Path, number: str) -> None:
    """To base 60 it is no float, or takes seconds. Of a text the same digits may be."""
    path = tmp_path / "card.yaml"
    path.write_text(f"weights: {{x: {number}}}")
    with pytest.raises(ConfigError, match=r"is no card: a number has more than 30 characters$"):
        card.trusts_code(path)
    path.write_text(f"weights: {{x: '{number}', trust_remote_code: true}}")
    assert card.trusts_code(path)


def test_a_card_that_is_no_file_is_named(tmp_path: Path) -> None:
    """A directory, as Compose makes one where a file is to be mounted that is not there; a pipe that nobody writes."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="is no card"):
            card.trusts_code(path)
