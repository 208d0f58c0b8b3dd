"""GATEWAY_PROCESSES: several processes on one port that look, count and end as one."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from gateway.config.api_keys import hash_key
from tests.fake_worker import COMPLETION, DONE, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import (
    CHAT,
    Gateway,
    Site,
    ask,
    post,
    read_to_end,
    run_to_its_end,
    wait_until,
)


def children(gateway: Gateway) -> list[int]:
    """The numbers of its processes, without the parent's own."""
    path = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def fresh(gateway: Gateway) -> httpx.Response:
    """An answer over a connection of its own, which the kernel gives to one of the processes."""
    with httpx.Client(base_url=f"http://{gateway.address}", timeout=10, trust_env=False) as client:
        return client.post(CHAT, json=ask("alpha"))


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    """A gateway of two processes, both of which know that the worker is ready."""
    gateway = start_gateway(GATEWAY_PROCESSES=2)
    wait_until(lambda: len(gateway.events("worker_state", to="ready")) == 2, "both ready")
    return gateway


def test_the_processes_count_as_one(gateway: Gateway, own_worker: FakeWorker) -> None:
    """Requests over many connections reach both, and are counted once each, wherever they were."""
    before = {pid: cpu_ticks(pid) for pid in children(gateway)}
    assert [fresh(gateway).content for _ in range(200)] == [COMPLETION] * 200
    assert all(cpu_ticks(pid) > before[pid] for pid in before)
    wait_until(lambda: len(gateway.events("request")) == 200, "200 log lines")
    assert gateway.metric("gateway_requests_total", status="200", ending="complete") == 200
    assert gateway.metric("gateway_request_duration_seconds_count", model="alpha") == 200
    assert gateway.metric("gateway_bodies_limit_bytes") == 256 * 1024 * 1024  # of both together
    assert (gateway.metric("gateway_processes"), gateway.metric("gateway_worker_state", state="ready")) == (
        2,
        1,
    )


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def test_requests_in_flight_are_those_of_all(gateway: Gateway, own_worker: FakeWorker) -> None:
    """`/workers` and the metric tell the sum, and both pages of targets name a worker once."""
    held = [
        gateway.connect(post(json.dumps(ask("alpha", "json", hold=True)).encode(), "connection: close"))
        for _ in range(12)
    ]
    seen = [own_worker.next() for _ in held]
    assert gateway.in_flight() == gateway.metric("gateway_requests_in_flight", slug="alpha") == 12
    assert [one["targets"] for one in gateway.ops.get("/targets/worker").json()] == [[own_worker.address]]
    for one in seen:
        one.go_on()
    for connection in held:
        assert read_to_end(connection).endswith(COMPLETION)
        connection.close()
    wait_until(lambda: gateway.in_flight() == 0, "every lease given back")


def test_the_end_is_one(gateway: Gateway, own_worker: FakeWorker) -> None:
    """At SIGTERM every process finishes its streams; the parent ends with the last, cleanly."""
    body = json.dumps(ask("alpha", "sse", chunks=3, hold=1)).encode()
    streams = [gateway.connect(post(body)) for _ in range(8)]
    seen = [own_worker.next() for _ in streams]
    gateway.terminate()
    wait_until(lambda: len(gateway.events("draining")) == 2, "both drain")
    assert gateway.process.poll() is None
    for one in seen:
        one.go_on()
    for stream in streams:
        assert read_to_end(stream).endswith(DONE + b"\r\n0\r\n\r\n")
        stream.close()
    assert gateway.end() == (0, "")


def test_a_process_that_is_lost_is_started_again(gateway: Gateway, own_worker: FakeWorker) -> None:
    """Meanwhile new connections wait in its backlog or are served by the other: none is refused."""
    lost = children(gateway)[0]
    os.kill(lost, signal.SIGKILL)
    assert gateway.event("process_lost")["exit_code"] == -signal.SIGKILL
    assert {fresh(gateway).status_code for _ in range(40)} == {200}
    wait_until(lambda: gateway.metric("gateway_processes") == 2, "two again")
    assert lost not in children(gateway)


def test_a_process_that_cannot_start_again_is_tried_until_it_can(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    """A key file that is wrong at run time changes nothing for the processes that serve: one that is lost meanwhile
    must not end them. Where none serves, the gateway ends as at a first start."""
    keys = tmp_path / "keys"
    keys.write_text(right := f"sha256:{hash_key(b'one')} one\n")
    gateway = start_gateway(GATEWAY_PROCESSES=2, GATEWAY_API_KEYS_FILE=keys)
    wait_until(lambda: gateway.metric("gateway_processes") == 2, "two")
    keys.write_text("sha256:short\n")
    lost, kept = children(gateway)
    os.kill(lost, signal.SIGKILL)
    gateway.event("process_lost", exit_code=2)
    assert (children(gateway), gateway.metric("gateway_processes")) == ([kept], 1)
    keys.write_text(right)
    wait_until(lambda: gateway.metric("gateway_processes") == 2, "two again")
    keys.write_text("sha256:short\n")
    for pid in children(gateway):
        os.kill(pid, signal.SIGKILL)
    code, complaints = gateway.end()
    assert code == 2
    assert "sha256:short" not in complaints
    assert complaints.count("is not `sha256:<64 hex digits> [name]`") >= 2


def test_an_end_while_a_process_is_started_again(gateway: Gateway) -> None:
    """None is started any more."""
    os.kill(children(gateway)[0], signal.SIGKILL)
    gateway.event("process_lost")
    gateway.terminate()
    assert gateway.end() == (0, "")
    assert len(gateway.events("process_listening")) == 2


def test_the_processes_end_with_their_parent(gateway: Gateway) -> None:
    """Also where it is killed and can tell nobody."""
    left = children(gateway)
    gateway.process.kill()
    gateway.end()
    wait_until(lambda: not any(is_running(pid) for pid in left), "all ended")


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


def test_a_taken_port_is_not_shared(gateway: Gateway, site: Site) -> None:
    """Two gateways of several processes each would else divide one port's clients silently."""
    port = gateway.address.rpartition(":")[2]
    refused = run_to_its_end(site, GATEWAY_PROCESSES="2", GATEWAY_PORT=port)
    assert (refused.returncode, refused.stderr.count("GATEWAY_PORT")) == (3, 1)


def test_a_wrong_setting_is_said_once(site: Site) -> None:
    """Not by each process."""
    refused = run_to_its_end(site, GATEWAY_PROCESSES="3", GATEWAY_CARDS_DIR="/nowhere")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


def test_clients_that_are_kept_alive_stay_where_they_are(gateway: Gateway) -> None:
    """A connection belongs to one process."""
    with socket.create_connection(tuple(gateway.address.split(":"))) as connection:  # type: ignore[arg-type]
        for _ in range(3):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n")
            time.sleep(0.05)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
