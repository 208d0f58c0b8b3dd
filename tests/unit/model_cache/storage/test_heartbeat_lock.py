"""One writer on a volume that hosts share: by heartbeats that are renewed, without a lock of any kernel."""

import threading
import time
from pathlib import Path

import pytest

from model_cache.storage.heartbeat_lock import HeartbeatLock

BEAT_S = 0.2


def nobody_waits() -> None:
    pytest.fail("nobody else is here")


def test_a_signature_lasts_as_long_as_the_work(tmp_path: Path) -> None:
    """It is renewed meanwhile, and gone afterwards, with every draft."""
    path = tmp_path / "x.owner"
    with HeartbeatLock(path, BEAT_S).held(nobody_waits):
        first = path.read_text()
        time.sleep(5 * BEAT_S)
        assert path.read_text() != first
    assert list(tmp_path.iterdir()) == []


def test_many_that_come_at_once_write_one_after_the_other(tmp_path: Path) -> None:
    """Whoever signs last stays; the others wait for it."""
    inside, most, done, start = [], [], [], threading.Barrier(6)

    def run() -> None:
        start.wait()
        with HeartbeatLock(tmp_path / "x.owner", BEAT_S).held(lambda: None):
            inside.append(1)
            most.append(len(inside))
            time.sleep(3 * BEAT_S)
            inside.pop()
        done.append(1)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 6
    assert set(most) == {1}


def test_a_dead_owner_is_waited_for_three_beats(tmp_path: Path) -> None:
    """Its heartbeat stops; the wait is told once."""
    path, waits = tmp_path / "x.owner", []
    path.write_text('{"run": "0123456789ab", "host": "other", "beat": 7}')
    began = time.monotonic()
    with HeartbeatLock(path, BEAT_S).held(lambda: waits.append(1)):
        assert time.monotonic() - began >= 3 * BEAT_S
    assert waits == [1]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}', '{"other": 1}'])
def test_what_is_no_signature_holds_nobody_up(tmp_path: Path, text: str) -> None:
    """Half a file, or somebody else's."""
    path = tmp_path / "x.owner"
    path.write_text(text)
    with HeartbeatLock(path, BEAT_S).held(nobody_waits):
        assert "beat" in path.read_text()


def test_a_signature_that_was_taken_over_is_left_alone(tmp_path: Path) -> None:
    """Who was taken for dead does not remove the heartbeat of the run after it."""
    path, other = tmp_path / "x.owner", '{"run": "0123456789ab", "host": "other", "beat": 7}'
    with HeartbeatLock(path, 0.5).held(nobody_waits):
        path.write_text(other)
    assert path.read_text() == other


def test_who_was_taken_for_dead_learns_it(tmp_path: Path) -> None:
    """Another run renews its heartbeat in that place: this one stops its own."""
    path, other = tmp_path / "x.owner", '{"run": "0123456789ab", "host": "other", "beat": 7}'
    owner = HeartbeatLock(path, BEAT_S)
    with owner.held(nobody_waits):
        path.write_text(other)
        time.sleep(3 * BEAT_S)
        assert owner.is_lost
    assert path.read_text() == other
