"""Files that are read again: a change counts once they stand still; a fault that may pass is tried again."""

import os
from pathlib import Path

import pytest

from gateway.api.errors import ConfigError, NotNow
from gateway.config.file_watch import FileWatch


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files that are read together."""
    paths = tmp_path / "a", tmp_path / "b"
    for path in paths:
        path.write_text("1")
    return paths


def change(path: Path) -> None:
    """Changes a file, with another time of change: a test is faster than the clock's tick."""
    before = path.stat().st_mtime_ns
    path.write_text("2")
    os.utime(path, ns=(before + 1, before + 1))


def fails(error: Exception) -> object:
    raise error


@pytest.mark.parametrize("which", [0, 1])
def test_a_change_of_any_file_counts_once_all_stand_still(files: tuple[Path, Path], which: int) -> None:
    """Each look that finds another content begins the wait anew."""
    watch = FileWatch(*files)
    assert watch.has_changed() is False
    for _ in range(3):
        change(files[which])
        assert watch.has_changed() is False
    assert watch.has_changed() is True
    assert watch.read(lambda: "new") == "new"
    assert watch.has_changed() is False


def test_wrong_content_is_read_once(files: tuple[Path, Path]) -> None:
    """It stays wrong until it changes."""
    watch = FileWatch(*files)
    change(files[0])
    assert [watch.has_changed() for _ in range(2)] == [False, True]
    with pytest.raises(ConfigError):
        watch.read(lambda: fails(ConfigError("wrong")))
    assert [watch.has_changed() for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("fault", [NotNow("not yet"), MemoryError(), RuntimeError("a bug")])
def test_what_may_pass_is_tried_at_each_look(files: tuple[Path, Path], fault: Exception) -> None:
    """It is news once, again after a change, and again after a good read."""
    watch = FileWatch(*files)
    change(files[0])
    assert watch.has_changed() is False
    for is_news in (True, False, False):
        assert watch.has_changed() is True
        with pytest.raises(type(fault)):
            watch.read(lambda: fails(fault))
        assert watch.is_news(str(fault)) is is_news
    change(files[1])
    assert [watch.has_changed() for _ in range(2)] == [False, True]
    assert watch.is_news(str(fault)) is True
    assert watch.read(lambda: 1) == 1
    assert watch.has_changed() is False
    assert watch.is_news(str(fault)) is True


@pytest.mark.parametrize("is_wrong", [False, True])
def test_what_changes_while_it_is_read_does_not_count(files: tuple[Path, Path], *, is_wrong: bool) -> None:
    """Neither what was found nor what was wrong with it."""
    watch = FileWatch(*files)
    change(files[0])
    assert [watch.has_changed() for _ in range(2)] == [False, True]

    def reader() -> str:
        change(files[1])
        if is_wrong:
            raise ConfigError("half of it")
        return "half of it"

    assert watch.read(reader) is None
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_a_change_before_the_first_look_counts(files: tuple[Path, Path]) -> None:
    """Even one during the first read, after the watch was made."""
    watch = FileWatch(*files)
    change(files[0])
    assert [watch.has_changed() for _ in range(2)] == [False, True]
