"""A standard output that nobody reads, as when `docker logs` is blocked: clients notice nothing."""

from __future__ import annotations

import fcntl
import time

import pytest

from tests.fake_worker import COMPLETION
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, wait_until

PIPELINED = 500
REFUSED = f"GET {CHAT} HTTP/1.1\r\nhost: gateway\r\n\r\n".encode() * PIPELINED  # each is a line of the log
TEN_MINUTES, EVERY_S = 600.0, 0.5


def stop_reading(gateway: Gateway) -> None:
    """From now on the log's pipe holds a page and no more."""
    gateway.reads_log.clear()
    assert gateway.process.stdout is not None
    fcntl.fcntl(gateway.process.stdout, fcntl.F_SETPIPE_SZ, 4096)


def log_much(gateway: Gateway) -> None:
    """Has the gateway log PIPELINED requests; all are answered."""
    with gateway.connect(REFUSED) as connection:
        seen = b""
        while seen.count(b"HTTP/1.1 405 ") < PIPELINED:
            seen += connection.recv(65536)


def fill(gateway: Gateway) -> None:
    """Logs until lines are dropped."""
    wait_until(
        lambda: log_much(gateway) or gateway.metric("gateway_log_lines_dropped_total"),
        "lines to be dropped",
        60,
    )


def test_nobody_reads_the_log(start_gateway: StartGateway) -> None:
    """Requests are answered all the same; what has no room is counted, and one line says so when somebody reads."""
    gateway = start_gateway()
    stop_reading(gateway)
    for _ in range(100):
        assert gateway.chat("alpha").content == COMPLETION
    fill(gateway)
    assert gateway.chat("alpha").content == COMPLETION
    assert gateway.http.get("/health").status_code == 200
    gateway.reads_log.set()
    told = gateway.event("log_lines_dropped")
    assert told["level"] == "warning"
    wait_until(
        lambda: (
            sum(line["lines"] for line in gateway.events("log_lines_dropped"))
            == gateway.metric("gateway_log_lines_dropped_total")
        ),
        "every dropped line to be told",
    )
    gateway.logged(gateway.chat("alpha"))


def test_the_end_waits_for_no_reader(start_gateway: StartGateway) -> None:
    """The process ends in time and with code 0, though its last lines find no reader."""
    gateway = start_gateway()
    stop_reading(gateway)
    for _ in range(100):
        gateway.chat("alpha")
    gateway.terminate()
    assert gateway.process.wait(20) == 0


def test_the_last_lines_are_written(start_gateway: StartGateway) -> None:
    """Where somebody reads, the log is whole: every request, and the end."""
    gateway = start_gateway()
    log_much(gateway)
    gateway.terminate()
    assert gateway.end() == (0, "")
    assert len(gateway.events("request", status=405)) == PIPELINED
    assert gateway.events("drained")


@pytest.mark.full
@pytest.mark.timeout(900)
def test_nobody_reads_the_log_for_ten_minutes(start_gateway: StartGateway) -> None:
    """Ten minutes of requests without a reader: every answer comes, whole, within the client's patience."""
    gateway = start_gateway()
    stop_reading(gateway)
    fill(gateway)
    end, slowest = time.monotonic() + TEN_MINUTES, 0.0
    while time.monotonic() < end:
        log_much(gateway)
        start = time.monotonic()
        assert gateway.chat("alpha").content == COMPLETION
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(EVERY_S)
    print(f"slowest answer: {slowest:.3f} s")
    gateway.reads_log.set()
    assert gateway.event("log_lines_dropped")
