"""Files of a day: private, whole lines, a new one at midnight, the old ones deleted."""

import errno
import fcntl
import os
from datetime import date
from pathlib import Path

import pytest

from gateway.telemetry.claim import Claim
from gateway.telemetry.daily_files import DailyFiles, expired

NOON = 1_800_000_000.0  # 2027-01-15, 08:00 UTC
DAY = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(tmp_path: Path, clock: Clock) -> DailyFiles:
    files = DailyFiles(tmp_path / "state" / "audit", 7, clock)
    files.prepare()
    return files


def test_only_this_user_can_read(tmp_path: Path, files: DailyFiles) -> None:
    """Neither the folder nor a file is there for others."""
    files.append(b"a\n")
    folder = tmp_path / "state" / "audit"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "2027-01-15.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_new_day_begins_a_new_file(tmp_path: Path, files: DailyFiles, clock: Clock) -> None:
    """By UTC, and each is appended to."""
    files.append(b"a\n")
    files.append(b"b\n")
    clock.now += DAY
    files.append(b"c\n")
    folder = tmp_path / "state" / "audit"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "2027-01-15.jsonl": b"a\nb\n",
        "2027-01-16.jsonl": b"c\n",
    }


def test_half_a_line_spoils_no_other(tmp_path: Path, files: DailyFiles) -> None:
    """What the disk or the host cut off ends where the next line begins."""
    path = tmp_path / "state" / "audit" / "2027-01-15.jsonl"
    path.write_bytes(b'{"half')
    files.append(b"a\n")
    assert path.read_bytes() == b'{"half\na\n'


def test_a_file_that_was_moved_is_made_again(tmp_path: Path, files: DailyFiles) -> None:
    """So an operator may take one away at any time."""
    path = tmp_path / "state" / "audit" / "2027-01-15.jsonl"
    files.append(b"a\n")
    path.rename(tmp_path / "taken")
    files.append(b"b\n")
    assert path.read_bytes() == b"b\n"


def test_a_link_is_not_followed(tmp_path: Path, files: DailyFiles) -> None:
    """It may lead anywhere."""
    path = tmp_path / "state" / "audit" / "2027-01-15.jsonl"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="2027-01-15"):
        files.append(b"a\n")
    assert not (tmp_path / "elsewhere").exists()


def test_old_files_are_deleted(tmp_path: Path, files: DailyFiles) -> None:
    """Those of more than seven days ago, and nothing else."""
    folder = tmp_path / "state" / "audit"
    for name in ("2027-01-07.jsonl", "2027-01-08.jsonl", "2026-01-01.jsonl", "notes", "2020-01-01.jsonl.gz"):
        (folder / name).touch()
    assert files.sweep() == ["2026-01-01.jsonl", "2027-01-07.jsonl"]
    left = {"2027-01-08.jsonl", "2027-01-15.jsonl", "notes", "2020-01-01.jsonl.gz"}
    assert {path.name for path in folder.iterdir()} == left


def test_no_date_is_too_old_for_the_arithmetic() -> None:
    """A clock at the beginning of time deletes nothing."""
    assert expired(["1999-01-01.jsonl"], date(1970, 1, 1), 36_500) == []


def test_one_of_several_has_the_claim(tmp_path: Path) -> None:
    """Until it ends; a folder that cannot be written keeps nobody from it."""
    first, second = Claim(tmp_path / "lock"), Claim(tmp_path / "lock")
    assert [first.is_ours(), second.is_ours(), first.is_ours()] == [True, False, True]
    os.close(first._descriptor)
    assert second.is_ours()
    assert Claim(tmp_path / "none" / "lock").is_ours()


def test_a_file_system_without_locks_gives_everybody_the_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better twice than never; and no descriptor stays open."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    claim, before = Claim(tmp_path / "lock"), len(os.listdir("/proc/self/fd"))
    assert [claim.is_ours(), claim.is_ours()] == [True, True]
    assert len(os.listdir("/proc/self/fd")) == before
