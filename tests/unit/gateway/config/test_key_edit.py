"""Changing a key file's text: nothing but what must change does."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.api.errors import ConfigError
from gateway.config import key_edit, key_file, yaml_file
from gateway.config.api_keys import hash_key
from gateway.config.key_file import Entry, parse
from gateway.config.model_options import Models, Options

ONE, TWO, NEW = (hash_key(name) for name in (b"one", b"two", b"new"))
MODELS = Models({"alpha": Options()}, {})
BLOCK = f"""# ours
keys:
    a:   # first
        sha256:
        - {ONE}  # of spring
        # nothing else
        models: [alpha]   # not beta

    b:
        sha256: ["{TWO}", {ONE[::-1]}]
# the end
"""
FLOW = f"keys:\n  a: {{sha256: [{ONE}]}} # first\n  b: {{priority: bulk, sha256: [{TWO}, '{ONE[::-1]}']}}"
RIGHTS = {"sha256": [NEW], "models": ["alpha"], "limits": {"rpm": 3}, "expires": "2027-01-01", "admin": True}


def entries(text: str) -> dict[str, Entry]:
    return {entry.key.name: entry for entry in parse(text, Path("k"), MODELS)}


@pytest.mark.parametrize(
    "text", ["", "\n", "# only this\n", "# only this", "keys:", "keys: {}\n", "keys:\n# none\n", BLOCK, FLOW]
)
@pytest.mark.parametrize("name", ["new", "123", "on", "2027-01-01", "null", "a.b-c_d", "1e3"])
def test_a_key_is_added_at_the_end(text: str, name: str) -> None:
    """Whatever stands there stays as it is, and names that YAML would take for something else are put in quotes."""
    found = entries(key_edit.with_entry(text, name, RIGHTS))
    assert {one: found[one] for one in found if one != name} == entries(text)
    assert (found[name].digests, found[name].key.models) == ((NEW,), {"alpha"})
    assert (found[name].key.limits.rpm, found[name].key.admin) == (3, True)
    for line in text.splitlines():
        assert line.partition("{}")[0] in key_edit.with_entry(text, name, RIGHTS)


def test_keys_in_braces_are_not_added_to() -> None:
    """A line below would be no part of them."""
    with pytest.raises(ConfigError, match="stand in braces: write each on lines of its own"):
        key_edit.with_entry(f"keys: {{a: {{sha256: [{ONE}]}}}}", "new", RIGHTS)


@pytest.mark.parametrize("text", [BLOCK, FLOW])
def test_a_new_digest_goes_before_the_others_and_the_last_of_three_goes(text: str) -> None:
    """All else stays, comments too."""
    one = key_edit.with_digest(text, "a", NEW)
    assert entries(one)["a"].digests == (NEW, ONE)
    assert entries(one)["b"] == entries(text)["b"]
    two = key_edit.with_digest(text, "b", NEW)
    assert entries(two)["b"].digests == (NEW, TWO)
    assert entries(two)["a"] == entries(text)["a"]
    three = key_edit.with_digest(one, "a", TWO[::-1])
    assert entries(three)["a"].digests == (TWO[::-1], NEW)
    for comment in ("# ours", "# first", "# of spring", "# nothing else", "# not beta", "# the end"):
        assert (comment in text) is (comment in one) is (comment in two) is (comment in three)


@pytest.mark.parametrize("text", [BLOCK, FLOW])
@pytest.mark.parametrize("name", ["a", "b"])
def test_a_revoked_key_keeps_its_entry(text: str, name: str) -> None:
    """With the moment; all else stays."""
    after = key_edit.with_revoked(text, name, "2026-12-24T00:00:00Z")
    before, found = entries(text), entries(after)
    assert found[name].key.revoked == 1798070400.0
    assert found[name].digests == before[name].digests
    assert {one: found[one] for one in found if one != name} == {
        one: before[one] for one in before if one != name
    }
    assert after.replace('revoked: "2026-12-24T00:00:00Z"', "").split() in (
        text.split(),
        text.replace(f"{name}: {{", f"{name}: {{, ").split(),
    )


def test_a_file_is_changed_in_itself(tmp_path: Path) -> None:
    """Its owner, its mode and whoever has it mounted stay; a shorter text leaves nothing of a longer one."""
    path = tmp_path / "keys"
    path.write_text(BLOCK)
    path.chmod(0o604)
    before = path.stat()
    with key_edit.locked(path) as file:
        assert file.text == BLOCK
        file.write("keys:\n")
    after = path.stat()
    assert path.read_text() == "keys:\n"
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_a_new_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    """It stays, though the command that made it fails: another one may wait for its lock, to write into it."""
    path = tmp_path / "keys"
    with pytest.raises(ConfigError, match="no"), key_edit.locked(path):
        raise ConfigError("no")
    assert path.read_bytes() == b""
    with key_edit.locked(path) as file:
        file.write("keys:\n")
    assert path.stat().st_mode & 0o7777 in (0o640, 0o600)  # as the umask has it


@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.parametrize("when", ["before the lock", "before the write", "during the write"])
def test_a_file_that_goes_while_it_is_changed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, is_replaced: bool
) -> None:
    """Else a key would be shown that is stored nowhere."""
    path = tmp_path / "keys"
    path.write_text(BLOCK)

    def take(*_: object) -> None:
        path.unlink()
        if is_replaced:
            path.write_text("other")

    if when == "before the lock":
        monkeypatch.setattr(fcntl, "flock", take)
    if when == "during the write":
        monkeypatch.setattr(os, "fsync", take)

    def write() -> None:
        with key_edit.locked(path) as file:
            if when == "before the write":
                take()
            file.write(FLOW)

    with pytest.raises(ConfigError, match="was removed or replaced meanwhile"):
        write()
    assert not is_replaced or path.read_text() == "other"


@pytest.mark.parametrize("failing", ["posix_fallocate", "pwrite", "ftruncate"])
def test_a_full_disk_leaves_the_old_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Whichever step it is that finds no room, after half of the new text too."""
    path = tmp_path / "keys"
    path.write_text(FLOW)
    real = getattr(os, failing)
    failures = [OSError(errno.ENOSPC, "No space left on device")]

    def fail_once(descriptor: int, *words: Any) -> object:
        if not failures:
            return real(descriptor, *words)
        if failing == "pwrite":
            real(descriptor, words[0][: len(words[0]) // 2], words[1])
        raise failures.pop()

    monkeypatch.setattr(os, failing, fail_once)
    with (
        pytest.raises(ConfigError, match=r"cannot be changed: .*No space left"),
        key_edit.locked(path) as file,
    ):
        file.write(BLOCK + FLOW)
    assert path.read_text() == FLOW


def test_a_file_system_that_cannot_reserve_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of those that Docker mounts cannot."""

    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with key_edit.locked(tmp_path / "keys") as file:
        file.write(BLOCK)
    assert (tmp_path / "keys").read_text() == BLOCK


def test_what_the_reader_takes_is_written(tmp_path: Path) -> None:
    """A large file too, which this must not bound more tightly."""
    text = BLOCK + "#" * (yaml_file.MAX_BYTES - len(BLOCK))
    with key_edit.locked(tmp_path / "keys") as file:
        file.write(text)
    with key_edit.locked(tmp_path / "keys") as file:
        assert file.text == text


def test_more_than_the_reader_takes_is_not_written(tmp_path: Path) -> None:
    """The gateway would refuse the file."""
    path = tmp_path / "keys"
    path.write_text(BLOCK)
    with pytest.raises(ConfigError, match="would be larger than"), key_edit.locked(path) as file:
        file.write("#" * (yaml_file.MAX_BYTES + 1))
    assert path.read_text() == BLOCK


@pytest.mark.parametrize(
    "text",
    [
        f"keys:\n  a:\n    revoked: null # no\n    sha256: [{ONE}]\n",
        f"keys:\n  a:\n    sha256: [{ONE}]\n    revoked:\n",
        f"keys:\n  a:\n    revoked:   # no\n    sha256: [{ONE}]",
        f"keys:\n  a: {{revoked: ~, sha256: [{ONE}]}}\n",
        f"keys:\n  a: {{sha256: [{ONE}], revoked: }}\n",
    ],
)
def test_a_key_whose_entry_says_that_it_is_not_revoked(text: str) -> None:
    """That word is replaced; a second one of its name would make the file wrong."""
    after = key_edit.with_revoked(text, "a", "2026-12-24T00:00:00Z")
    assert entries(after)["a"].key.revoked == 1798070400.0
    assert ("# no" in text) is ("# no" in after)


@pytest.mark.parametrize(
    "content", [None, b"\xff", b"#" * (key_file.MAX_BYTES + 1)], ids=["no directory", "no text", "too large"]
)
def test_a_file_that_cannot_be_changed_is_told(tmp_path: Path, content: bytes | None) -> None:
    """No such directory, no text, or larger than any key file."""
    path = tmp_path / "none" / "keys"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    with (
        pytest.raises(ConfigError, match=r"keys (cannot be changed: |is larger than)"),
        key_edit.locked(path),
    ):
        pass
    assert content is None or path.read_bytes() == content
