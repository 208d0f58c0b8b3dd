"""Sources that refuse, ask to wait, drip or never end: asked again as they say, given up in bounded time, all named."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.hub.faults import LISTING, Fault
from tests.hub.server import Hub

from .conftest import REPO, SHARDS, Job, hashes

SHARD = next(iter(SHARDS))
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n"


@pytest.fixture
def lock(job: Job, tmp_path: Path) -> Path:
    """What the hub listed while it was well, as the job's weights.lock."""
    path = tmp_path / "weights.lock"
    path.write_text(job.run_text("lock").stdout, encoding="utf-8")
    job.settings["MODEL_CACHE_LOCK_FILE"] = str(path)
    return path


def asked_for(hub: Hub, path: str) -> list[float]:
    """When."""
    return [at for request, at in zip(hub.requests, hub.times, strict=True) if path in request]


def test_refusals_after_a_listing_pass(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """401, 403 and 408 for a file of a repository that was just listed: asked for again, and all is well."""
    faults = zip((401, 403, 408), ("config.json", SHARD, "empty.txt"), strict=True)
    hub.faults.set(*(Fault("status", path, status, times=1) for status, path in faults))

    outcome = job.run()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert outcome.lines[-1]["retries"] == 3


def test_a_refusal_that_stays_is_told(job: Job, hub: Hub) -> None:
    """Exit 6 when MODEL_CACHE_RETRY_S have passed; the bound is in the log."""
    hub.faults.set(Fault("status", SHARD, 403))

    outcome = job.run(MODEL_CACHE_RETRY_S="2")

    assert outcome.code == 6
    assert "403" in outcome.stderr
    assert "MODEL_CACHE_TOKEN_FILE" in outcome.stderr
    assert any("for 2 s at most" in (line["remark"] or "") for line in outcome.lines)


def test_a_busy_hub_is_asked_when_it_says(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """For the listing and for a file, in seconds and as a date."""
    later = formatdate(time.time() + 12, usegmt=True)
    hub.faults.set(
        Fault("status", LISTING, 429, times=1, retry_after="9"),
        Fault("status", SHARD, 429, times=1, retry_after=later),
    )

    outcome = job.run()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    first, second = asked_for(hub, "/repo/files")
    assert second - first >= 9
    assert any("asking again in 9 s, for 300 s at most" in (line["remark"] or "") for line in outcome.lines)


@pytest.mark.parametrize("told", ["0", "-5", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_no_wait_that_is_told_is_no_hurry(job: Job, hub: Hub, told: str) -> None:
    """Now, before now, or long ago: the ordinary pauses are kept, and the bound."""
    hub.faults.set(Fault("status", SHARD, 429, retry_after=told))

    outcome = job.run(MODEL_CACHE_RETRY_S="3")

    assert outcome.code == 3
    assert "429" in outcome.stderr
    assert len(asked_for(hub, SHARD)) <= 4


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("status", LISTING, 429, times=1, retry_after="4")],
        [Fault("status", LISTING, 503, times=2)],
        [Fault("status", shard, 429, times=1, retry_after="4") for shard in SHARDS],
    ],
    ids=["the listing is to wait", "the listing fails for a while", "every file is to wait"],
)
def test_waiting_is_not_slowness(
    job: Job, hub: Hub, true_hashes: dict[str, str], faults: list[Fault]
) -> None:
    """However short the time over which speed is judged."""
    hub.faults.set(*faults)

    outcome = job.run(MODEL_CACHE_PATIENCE_S="2")

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes


def test_a_fallback_is_asked_when_it_says(
    job: Job, hub: Hub, models: Path, lock: Path, true_hashes: dict[str, str]
) -> None:
    """Not before, and waiting is not slowness."""
    with Hub(models).running() as other:
        other.faults.set(Fault("status", SHARD, 429, times=1, retry_after="3"))
        hub.stop()
        outcome = job.run(MODEL_CACHE_FALLBACKS=f"hf:{other.endpoint}", MODEL_CACHE_PATIENCE_S="2")

        assert outcome.code == 0, outcome.stderr
        first, second = asked_for(other, SHARD)
        assert second - first >= 3
    assert hashes(job.link) == true_hashes


def test_one_that_asks_for_too_much_is_left_for_the_next(
    job: Job, hub: Hub, models: Path, true_hashes: dict[str, str]
) -> None:
    """An hour is more than MODEL_CACHE_RETRY_S: another brings the file at once."""
    hub.faults.set(Fault("status", SHARD, 429, retry_after="3600"))
    with Hub(models).running() as other:
        outcome = job.run(MODEL_CACHE_FALLBACKS=f"hf:{other.endpoint}")

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert any("asks for 3600 s more" in (line["remark"] or "") for line in outcome.lines)


def test_every_source_has_its_say(job: Job, hub: Hub, models: Path, lock: Path) -> None:
    """The last one's reason first, then those before it."""
    endpoint = hub.endpoint
    hub.stop()
    with Hub(models).running() as other:
        other.faults.set(*(Fault("status", path, 403) for path in (*SHARDS, "config.json")))
        outcome = job.run(MODEL_CACHE_FALLBACKS=f"hf:{other.endpoint} dir:/nowhere", MODEL_CACHE_RETRY_S="1")

        assert outcome.code == 3
        assert outcome.stderr.count("\n") == 1
        reasons = ["/nowhere has no", other.endpoint, "403", endpoint, "Connection refused"]
        places = [outcome.stderr.find(reason) for reason in reasons]
    assert -1 not in places
    assert places == sorted(places)


def test_a_source_that_drips_is_left_for_the_next(
    job: Job, hub: Hub, models: Path, lock: Path, true_hashes: dict[str, str]
) -> None:
    """Five bytes a second would take weeks: whoever sends them."""
    hub.stop()
    with Hub(models).running() as slow, Hub(models).running() as other:
        slow.faults.set(Fault("drip", SHARD, value=5))
        outcome = job.run(
            MODEL_CACHE_FALLBACKS=f"hf:{slow.endpoint} hf:{other.endpoint}", MODEL_CACHE_PATIENCE_S="2"
        )
        slow.stopping.set()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert any("MODEL_CACHE_LEAST_BYTES_PER_S" in (line["remark"] or "") for line in outcome.lines)


@pytest.mark.parametrize("fault", [Fault("drip", LISTING, value=2), Fault("endless", LISTING)])
def test_a_listing_that_never_ends_is_left_for_the_next(
    job: Job, hub: Hub, models: Path, lock: Path, true_hashes: dict[str, str], fault: Fault
) -> None:
    """Be it that it drips or that it pours."""
    hub.faults.set(fault)
    with Hub(models).running() as other:
        outcome = job.run(MODEL_CACHE_FALLBACKS=f"hf:{other.endpoint}", MODEL_CACHE_PATIENCE_S="2")
        hub.stopping.set()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert any(f"going on with {other.endpoint}" in (line["remark"] or "") for line in outcome.lines)


@contextmanager
def pouring() -> Iterator[str]:
    """A server whose answer to anything has no end."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pour() -> None:
            with suppress(OSError):
                while not done.is_set():
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        connection.recv(4096)
                        connection.sendall(ENDLESS)
                        while not done.is_set():
                            connection.sendall(b" " * 65536)

        thread = threading.Thread(target=pour, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        done.set()


def test_a_node_whose_listing_never_ends(job: Job, hub: Hub) -> None:
    """Exit 3 with both reasons, and no memory filled."""
    hub.stop()
    with pouring() as address:
        outcome = job.run(MODEL_CACHE_FALLBACKS=f"node:{address}")

    assert outcome.code == 3
    assert f"{address} gives no listing (more than" in outcome.stderr
    assert hub.endpoint in outcome.stderr


def test_a_hub_that_lists_what_json_cannot_count(job: Job, hub: Hub) -> None:
    """Exit 3 or 4 in one sentence: a size that is infinite, of 400 digits, or none."""
    for size in (float("inf"), 10**399, "9" * 5000, [2]):
        hub.faults.set(Fault("entry", entry={"Path": "x", "Type": "blob", "Size": size, "Sha256": "0" * 64}))
        outcome = job.run()

        assert outcome.code in (3, 4), (size, outcome.stderr)
        assert outcome.stderr.count("\n") == 1
        assert "Traceback" not in outcome.stderr
    assert REPO in hub.requests[0]
