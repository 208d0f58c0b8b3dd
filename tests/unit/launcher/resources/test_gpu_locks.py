"""GPU locks are real locks on real files; several launchers use one folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from launcher.resources.gpu_locks import BusyError, GpuLocks
from launcher.resources.gpus import GPU, GpusError

NODE = tuple(GPU(index, f"GPU-{index:08x}") for index in range(8))

Launcher = Callable[..., GpuLocks]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Makes the locks of one more launcher on a node of eight GPUs."""
    with ExitStack() as stack:

        def locks(count: int, slug: str = "a", directory: Path = tmp_path) -> GpuLocks:
            made = GpuLocks(directory, count, slug)
            stack.callback(made.release)
            return made

        yield locks


def test_the_lowest_free_indexes_are_taken_and_kept(launcher: Launcher) -> None:
    """A second claim of the same launcher is the first one's GPUs."""
    first, second = launcher(3), launcher(2)
    assert first.claim(NODE) == NODE[:3]
    assert second.claim(NODE) == NODE[3:5]
    assert first.claim(NODE) == NODE[:3]


def test_a_released_gap_is_filled_first(launcher: Launcher) -> None:
    """The lowest index wins, wherever it lies."""
    first, second = launcher(2), launcher(2)
    first.claim(NODE)
    second.claim(NODE)
    first.release()
    assert launcher(3).claim(NODE) == (*NODE[:2], NODE[4])


def test_a_claim_that_fails_takes_nothing(launcher: Launcher) -> None:
    """What was free before it is free after it."""
    launcher(1).claim(NODE)
    with pytest.raises(BusyError):
        launcher(8).claim(NODE)
    assert launcher(7).claim(NODE) == NODE[1:]


def test_the_line_names_every_holder_with_its_gpus(launcher: Launcher, tmp_path: Path) -> None:
    """Slug, container and since when, as the slot's file says; a holder of several GPUs is named once."""
    launcher(2, "big").claim(NODE)
    launcher(1, "small").claim(NODE)
    with pytest.raises(BusyError) as caught:
        launcher(8).claim(NODE)
    big, small = (json.loads((tmp_path / NODE[index].uuid).read_text()) for index in (0, 2))
    assert str(caught.value) == (
        "8 needed, 5 of 8 free: "
        f"GPU 0, 1 held by big (container {big['container']}, since {big['since']}); "
        f"GPU 2 held by small (container {small['container']}, since {small['since']})"
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"who": "me"}', "null"])
def test_a_holder_that_cannot_be_read_is_still_a_holder(
    launcher: Launcher, tmp_path: Path, content: str
) -> None:
    """The lock counts, not what the file says."""
    launcher(8).claim(NODE)
    for gpu in NODE:
        (tmp_path / gpu.uuid).write_text(content)
    with pytest.raises(BusyError, match="held by a launcher that left no name"):
        launcher(1).claim(NODE)


def test_content_without_a_lock_means_nothing(launcher: Launcher, tmp_path: Path) -> None:
    """What a dead launcher wrote, however long, is overwritten whole."""
    (tmp_path / NODE[0].uuid).write_text('{"slug": "dead", "container": "c", "since": "s"}' * 100)
    assert launcher(1, "alive").claim(NODE) == NODE[:1]
    assert json.loads((tmp_path / NODE[0].uuid).read_text())["slug"] == "alive"


def test_a_worker_without_gpus_asks_nobody(tmp_path: Path) -> None:
    """With a count of 0 the volume need not be there."""
    locks = GpuLocks(tmp_path / "none", 0, "a")
    assert locks.are_claimed
    assert locks.claim(()) == ()


def test_too_few_gpus_and_a_missing_volume_are_configuration_errors(
    launcher: Launcher, tmp_path: Path
) -> None:
    """No waiting would mend either."""
    with pytest.raises(GpusError, match="9 GPUs needed, 8 visible in this container"):
        launcher(9).claim(NODE)
    with pytest.raises(GpusError, match="none: No such file or directory"):
        launcher(1, directory=tmp_path / "none").claim(NODE)


def test_claims_at_the_same_time_share_no_gpu_and_lose_none(launcher: Launcher) -> None:
    """Whoever comes first shares nothing, and eight small launchers among the others leave no GPU idle."""
    counts = [1] * 8 + [2, 3, 4] * 2
    won: list[tuple[GPU, ...]] = []
    together = threading.Barrier(len(counts))

    def claim(locks: GpuLocks) -> None:
        together.wait()
        with suppress(BusyError):
            won.append(locks.claim(NODE))

    threads = [threading.Thread(target=claim, args=(launcher(count),)) for count in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(gpu for claim in won for gpu in claim) == list(NODE)
