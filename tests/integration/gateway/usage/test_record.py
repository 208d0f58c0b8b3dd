"""The record of usage: what workers said, once, whatever ends the gateway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.config.api_keys import hash_key
from gateway.usage.store import FILE, month_totals, totals
from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, wait_until

EVER = (0, 1 << 40)
LOST_S = 1.0  # of usage, at most, when the gateway is killed
NAMES = ("one", "two", "three")


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """A key file with three keys, and a folder for the record."""
    keys, state = tmp_path / "keys", tmp_path / "state"
    keys.write_text("".join(f"sha256:{hash_key(f'sk-{name}'.encode())} {name}\n" for name in NAMES))
    state.mkdir()
    return {"GATEWAY_API_KEYS_FILE": keys, "GATEWAY_STATE_DIR": state}


def used(settings: dict[str, object]) -> dict[str, tuple[object, ...]]:
    """Requests, refused, tokens in, cached, out, by key."""
    try:
        return {
            str(row[0]): row[1:]
            for row in totals(Path(str(settings["GATEWAY_STATE_DIR"])) / FILE, ["key"], *EVER)
        }
    except OSError:
        return {}


def post(gateway: Gateway, name: str, body: object) -> httpx.Response:
    return gateway.http.post(CHAT, json=body, headers={"authorization": f"Bearer sk-{name}"})


@pytest.mark.parametrize("processes", [1, 2])
def test_what_keys_use_is_written(
    start_gateway: StartGateway, own_worker: FakeWorker, settings: dict[str, object], processes: int
) -> None:
    """Within a second while it runs, the rest at its end; what no worker got is apart; the month has the tokens."""
    gateway = start_gateway(GATEWAY_PROCESSES=processes, **settings)
    wait_until(lambda: len(gateway.events("worker_state", to="ready")) == processes, "all ready")
    for _ in range(3):
        assert post(gateway, "one", ask("alpha")).status_code == 200
    assert post(gateway, "two", ask("alpha")).status_code == 200
    assert post(gateway, "two", ask("nothing")).status_code == 404
    wanted = {"one": (3, 0, 3, 0, 6), "two": (1, 1, 1, 0, 2)}
    wait_until(lambda: used(settings) == wanted, "the record")
    assert post(gateway, "three", ask("alpha")).status_code == 200
    gateway.terminate()
    assert gateway.end() == (0, "")
    assert used(settings) == wanted | {"three": (1, 0, 1, 0, 2)}
    assert month_totals(Path(str(settings["GATEWAY_STATE_DIR"]))) == {"one": 9, "two": 3, "three": 3}


def test_a_stored_response_counts_when_it_is_made(
    start_gateway: StartGateway, own_worker: FakeWorker, settings: dict[str, object]
) -> None:
    """Who asks for it again uses nothing more: so say the record and the metrics of the key."""
    gateway = start_gateway(**settings)
    own_worker.responses = {"resp_kept"}
    headers = {"authorization": "Bearer sk-one"}
    assert gateway.http.get("/v1/responses/resp_kept", headers=headers).json()["usage"]["prompt_tokens"] == 1
    wait_until(lambda: used(settings) == {"one": (1, 0, 0, 0, 0)}, "the record")
    assert gateway.metric("gateway_key_requests_total", key="one") == 1
    for kind in ("prompt", "completion"):
        assert gateway.metric(f"gateway_key_{kind}_tokens_total", key="one") == 0


def test_without_keys_nothing_is_written(
    start_gateway: StartGateway, own_worker: FakeWorker, tmp_path: Path
) -> None:
    """Nobody's use could be told apart."""
    gateway = start_gateway(GATEWAY_STATE_DIR=tmp_path)
    assert gateway.chat("alpha").status_code == 200
    gateway.terminate()
    assert gateway.end() == (0, "")
    assert not (tmp_path / FILE).exists()


def test_no_volume_is_told_once(
    start_gateway: StartGateway, own_worker: FakeWorker, settings: dict[str, object], tmp_path: Path
) -> None:
    """Requests are served all the same, and written once there is one."""
    folder = tmp_path / "later"
    settings["GATEWAY_STATE_DIR"] = folder
    gateway = start_gateway(**settings)
    assert str(folder) in gateway.event("usage_not_written")["message"]
    assert post(gateway, "one", ask("alpha")).status_code == 200
    folder.mkdir()
    gateway.event("usage_written_again")
    wait_until(lambda: used(settings) == {"one": (1, 0, 1, 0, 2)}, "the record")
    assert len(gateway.events("usage_not_written")) == 1


def command(settings: dict[str, object], *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "gateway", "usage", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_reads_while_the_gateway_writes(
    start_gateway: StartGateway, own_worker: FakeWorker, settings: dict[str, object]
) -> None:
    """As a table, CSV or JSON, by key, model and day."""
    nothing = command(settings)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "no usage was recorded yet" in nothing.stderr
    gateway = start_gateway(**settings)
    for name in ("one", "two", "one"):
        post(gateway, name, ask("alpha"))
    wait_until(lambda: sum(int(str(row[0])) for row in used(settings).values()) == 3, "the record")
    table = [line.split() for line in command(settings).stdout.splitlines()]
    assert table[0] == ["KEY", "MODEL", "REQUESTS", "REFUSED", "TOKENS", "IN", "CACHED", "TOKENS", "OUT"]
    assert table[1:] == [
        ["one", "alpha", "2", "0", "2", "0", "4"], ["two", "alpha", "1", "0", "1", "0", "2"],
        ["total", "3", "0", "3", "0", "6"],
    ]  # fmt: skip
    found = json.loads(command(settings, "--format=json", "--by=model").stdout)
    counts = {"requests": 3, "refused": 0, "tokens_in": 3, "cached": 0, "tokens_out": 6}
    assert found == [{"model": "alpha", **counts}]
    lines = command(settings, "--format=csv", "--by=key,day").stdout.splitlines()
    assert lines[0] == "key,day,requests,refused,tokens_in,cached,tokens_out"
    assert [line[:6] for line in lines[1:]] == ["one,20", "two,20"]
    later = command(settings, "--since=2100-01-01", "--format=", "--by=", "--until=")
    assert (later.returncode, "no usage was recorded in this time" in later.stderr) == (1, True)
    assert command(settings, "--since=2100-01-01", "--format=json").stdout == "[]\n"
    assert json.loads(command(settings, "--until=9999-12-31", "--format=json", "--by=model").stdout) == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by=hour"], "BY=hour must be some of key, model, day"),
        (["--by=key,key"], "each once"),
        (["--since=yesterday"], "SINCE=yesterday is no day"),
        (["--since=2026-11-02", "--until=2026-11-01"], "UNTIL=2026-11-01 is before SINCE=2026-11-02"),
    ],
)
def test_wrong_words_are_told(settings: dict[str, object], words: list[str], said: str) -> None:
    done = command(settings, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_record_that_is_none_is_told(settings: dict[str, object]) -> None:
    (Path(str(settings["GATEWAY_STATE_DIR"])) / FILE).write_bytes(b"no database " * 100)
    done = command(settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{FILE} cannot be read" in done.stderr


# kill -9


class Clients:
    """Send requests as long as the block runs, and note when each whole answer was there, by key."""

    def __init__(self, gateway: Gateway, threads: int) -> None:
        self._url = f"http://{gateway.address}"
        self._threads = [
            threading.Thread(target=self._run, args=(NAMES[n % len(NAMES)],)) for n in range(threads)
        ]
        self._stop = threading.Event()
        self.answered: dict[str, list[float]] = {name: [] for name in NAMES}
        self.begun = Counter[str]()

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _run(self, name: str) -> None:
        headers = {"authorization": f"Bearer sk-{name}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=40, trust_env=False) as client:
            while not self._stop.is_set():
                self.begun[name] += 1
                try:
                    answer = client.post(CHAT, json=ask("alpha"))
                except httpx.TransportError:
                    return  # killed
                if answer.status_code == 200:
                    self.answered[name].append(time.monotonic())


def kill_under_load(
    start_gateway: StartGateway, settings: dict[str, object], rounds: int, processes: int
) -> None:
    """Kills the gateway in the middle of many requests, again and again: each time what it had written is at least what
    was answered until a second before, and never more than what was asked."""
    least, most = Counter[str](), Counter[str]()
    for number in range(rounds):
        gateway = start_gateway(GATEWAY_PROCESSES=processes, **settings)
        wait_until(lambda: len(gateway.events("worker_state", to="ready")) >= processes, "all ready")  # noqa: B023
        clients = Clients(gateway, 6)
        with clients.running():
            wait_until(lambda: all(len(times) > 5 for times in clients.answered.values()), "load")  # noqa: B023
            time.sleep(LOST_S + number % 10 / 20)  # under load, to kill at another moment each time
            killed = time.monotonic()
            kill(gateway)
        for name in NAMES:
            least[name] += sum(when < killed - LOST_S for when in clients.answered[name])
            most[name] += clients.begun[name]
        found = used(settings)
        for name in NAMES:
            requests, refused, tokens_in, _, tokens_out = (int(str(value)) for value in found[name])
            assert least[name] <= requests <= most[name]
            assert (tokens_in, tokens_out, refused) == (requests, 2 * requests, 0)
            # what is there is there for good: the next round begins from it
            least[name] = most[name] = requests


def kill(gateway: Gateway) -> None:
    """Kills it with all its processes, as the end of a container does."""
    path = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    children = [int(pid) for pid in path.read_text().split()]
    for pid in (gateway.process.pid, *children):
        os.kill(pid, signal.SIGKILL)
    assert gateway.end()[0] == -signal.SIGKILL


@pytest.mark.parametrize("processes", [1, 2])
def test_a_kill_loses_a_second_at_most(
    start_gateway: StartGateway, own_worker: FakeWorker, settings: dict[str, object], processes: int
) -> None:
    kill_under_load(start_gateway, settings, rounds=3, processes=processes)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_fifty_kills(
    start_gateway: StartGateway, own_worker: FakeWorker, settings: dict[str, object]
) -> None:
    kill_under_load(start_gateway, settings, rounds=50, processes=1)


def test_a_process_that_is_killed_loses_little(
    start_gateway: StartGateway, own_worker: FakeWorker, settings: dict[str, object]
) -> None:
    """What it had sent to its parent is written, once; the others' use too."""
    gateway = start_gateway(GATEWAY_PROCESSES=2, **settings)
    wait_until(lambda: len(gateway.events("worker_state", to="ready")) == 2, "both ready")
    for _ in range(20):
        with httpx.Client(base_url=f"http://{gateway.address}", timeout=40, trust_env=False) as client:
            client.post(
                CHAT, json=ask("alpha"), headers={"authorization": "Bearer sk-one"}
            ).raise_for_status()
    wait_until(lambda: used(settings) == {"one": (20, 0, 20, 0, 40)}, "the record")
    path = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
    gateway.event("process_lost")
    wait_until(lambda: len(gateway.events("worker_state", to="ready")) == 3, "ready again")
    assert used(settings) == {"one": (20, 0, 20, 0, 40)}
    assert post(gateway, "two", ask("alpha")).status_code == 200
    wait_until(lambda: used(settings).get("two") == (1, 0, 1, 0, 2), "the record")
    gateway.terminate()
    gateway.end()
