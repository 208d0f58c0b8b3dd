"""Anything may lie on a volume: each reader refuses it in one line, and what is only advice is done without."""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.engine.phases import Phase
from launcher.files import safe_open
from launcher.resources.gpu_locks import BusyError, GpuLocks
from launcher.resources.gpus import GPU, GpusError
from launcher.resources.weights import CorruptError, WeightsError, find
from launcher.status import history, state
from launcher.status.logs import Log
from launcher.status.progress import Progress
from launcher.status.state import State
from tests.unit.launcher.published import publish
from tests.wrong_files import PLANTED, WRONG, wrong_records

SLUG = "a-model"
RECORDS = dict(wrong_records())
NODE = (GPU(0, "GPU-a"), GPU(1, "GPU-b"))


@pytest.fixture(params=[*WRONG, *PLANTED])
def wrong(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Puts something wrong where a file should be; returns its path."""

    def put(path: Path) -> Path:
        if request.param in PLANTED:
            PLANTED[request.param](path)
        else:
            path.write_bytes(WRONG[request.param])
        return path

    return put


def test_a_history_that_is_wrong_is_dropped_with_one_line(
    tmp_path: Path, wrong: Callable[[Path], Path]
) -> None:
    """And the next start is remembered in its place, unless a directory lies there."""
    file, out = wrong(tmp_path / "starts.json"), io.BytesIO()
    progress = Progress(Log("a", out), tmp_path / "state.json", file)
    dropped = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in dropped] == ["history-dropped"]
    assert len(dropped[0]["problem"]) < 400
    progress.begin()
    progress.advance(Phase.READY)
    assert file.is_dir() or "weights-check" not in history.read(file)[0]


def test_a_state_that_is_wrong_is_none(tmp_path: Path, wrong: Callable[[Path], Path]) -> None:
    assert state.read(wrong(tmp_path / "state.json")) is None


@pytest.mark.parametrize("field", list(State.__dataclass_fields__))
@pytest.mark.parametrize(
    "value", [None, True, -1, 1.5, "x", "9999-99-99T99:99:99.999Z", [], {"x": 1}, {"loading": "4"}, 10**400]
)
def test_a_state_with_a_wrong_field_is_none_or_still_one(tmp_path: Path, field: str, value: object) -> None:
    """Whatever passes can be described."""
    file = tmp_path / "state.json"
    state.write(file, State("a", Phase.LOADING))
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    found = state.read(file)
    assert found is None or found.describe()


def test_a_signature_that_is_wrong_leaves_a_holder_without_a_name(
    tmp_path: Path, wrong: Callable[[Path], Path]
) -> None:
    """The lock counts; what is no file at all is refused by its name."""
    path = wrong(tmp_path / NODE[0].uuid)
    if not path.is_file() or path.is_symlink():
        with pytest.raises(GpusError, match="GPU-a: "):
            GpuLocks(tmp_path, 2, "a").claim(NODE)
        return
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="GPU 0 held by a launcher that left no name"):
            GpuLocks(tmp_path, 2, "a").claim(NODE)


@pytest.mark.parametrize("name", ["turn.lock", NODE[0].uuid])
def test_a_link_among_the_slots_is_not_followed(tmp_path: Path, name: str) -> None:
    """Its target keeps every byte, and is not made either."""
    target, slots = tmp_path / "target", tmp_path / "slots"
    slots.mkdir()
    (slots / name).symlink_to(target)
    with pytest.raises(GpusError, match=f"{name}: it is a symbolic link, and none is followed"):
        GpuLocks(slots, 1, "a").claim(NODE)
    assert not target.exists()
    target.write_text("precious")
    with pytest.raises(GpusError, match="symbolic link"):
        GpuLocks(slots, 1, "a").claim(NODE)
    assert target.read_text() == "precious"


@pytest.mark.parametrize("name", RECORDS)
def test_a_wrong_ready_file_is_named(tmp_path: Path, name: str) -> None:
    """In one line of bounded length, by one kind of error."""
    ready = publish(tmp_path, SLUG) / "READY.json"
    ready.write_bytes(RECORDS[name])
    with pytest.raises(WeightsError) as caught:
        find(tmp_path, SLUG)
    assert str(ready) in str(caught.value)
    assert len(str(caught.value)) < 800
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", PLANTED)
def test_what_lies_where_the_ready_file_should_is_not_read(tmp_path: Path, name: str) -> None:
    ready = publish(tmp_path, SLUG) / "READY.json"
    ready.unlink()
    PLANTED[name](ready)
    with pytest.raises(WeightsError, match=r"READY\.json (cannot be read|is not a READY file): "):
        find(tmp_path, SLUG)


def test_a_withdrawal_that_is_wrong_is_done_without(tmp_path: Path, wrong: Callable[[Path], Path]) -> None:
    """That READY.json is missing is what counts."""
    snapshot = publish(tmp_path, SLUG)
    (snapshot / "READY.json").unlink()
    wrong(snapshot.with_name(f"{snapshot.name}.withdrawn.json"))
    with pytest.raises(WeightsError, match=r"READY\.json cannot be read: No such file") as caught:
        find(tmp_path, SLUG)
    assert not isinstance(caught.value, CorruptError)


def test_a_draft_that_is_planted_is_not_written_to(tmp_path: Path) -> None:
    """A link in the place of the draft is removed, and its target kept."""
    target, file = tmp_path / "target", tmp_path / "file"
    target.write_text("precious")
    draft = tmp_path / f".file.{os.uname().nodename}"
    draft.symlink_to(target)
    safe_open.replace(file, "new")
    assert (target.read_text(), file.read_text()) == ("precious", "new")
    assert not file.is_symlink()
