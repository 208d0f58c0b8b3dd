"""The client's side of the wire: what is no HTTP/1.1 reaches nothing, what is gets its answer, however it is cut."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from select import select

import pytest

from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, WAIT_S, Gateway, ask, post, read_to_end, wait_until
from tests.integration.gateway.test_processes import cpu_ticks

KIB, MIB = 1 << 10, 1 << 20
BODY = json.dumps(ask("alpha")).encode()
HOST, LENGTH, CLOSE = b"Host: gateway\r\n", b"Content-Length: %d\r\n" % len(BODY), b"Connection: close\r\n"
LINE = f"POST {CHAT} HTTP/1.1\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n" % (len(BODY), BODY)
GOOD = LINE + HOST + LENGTH + b"\r\n" + BODY
LAST = b"0\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: x\r\n"


def whole(gateway: Gateway, data: bytes) -> bytes:
    """All that comes back until the gateway closes."""
    with gateway.connect() as connection:
        with suppress(ConnectionError):  # it need not read to the end of what it refuses
            connection.sendall(data)
        return read_to_end(connection)


def statuses(answer: bytes) -> list[bytes]:
    """Of the answers, by the dates behind their first lines."""
    return re.findall(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\ndate: ", answer)


NO_HTTP = {
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a tunnel that offers another protocol": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n",
    "a tunnel to a path": LINE.replace(b"POST", b"CONNECT") + HOST + CLOSE + b"\r\n",
    "HTTP/2.0 and an upgrade": LINE.replace(b"1.1", b"2.0") + HOST + LENGTH + UPGRADE + b"\r\n" + BODY,
    "HTTP/0.9 and an upgrade": LINE.replace(b"1.1", b"0.9") + HOST + LENGTH + UPGRADE + b"\r\n" + BODY,
    "no version and an upgrade": LINE.replace(b" HTTP/1.1", b"") + HOST + LENGTH + UPGRADE + b"\r\n" + BODY,
    "HTTP/1.0, chunks and an upgrade": LINE.replace(b"1.1", b"1.0") + HOST + CHUNKED + UPGRADE + b"\r\n" + CHUNKS,
    "RTSP": LINE.replace(b"HTTP/1.1", b"RTSP/1.0") + HOST + LENGTH + b"\r\n" + BODY,
    "ICE": LINE.replace(b"POST", b"SOURCE").replace(b"HTTP", b"ICE") + HOST + LENGTH + b"\r\n" + BODY,
    "several spaces": GOOD.replace(b" /", b"   /", 1),
    "spaces behind the target": GOOD.replace(b" HTTP", b"  HTTP", 1),
    "a carriage return before it": b"\r" + GOOD,
    "a line feed before it": b"\n" + GOOD,
    "two empty lines before it": b"\r\n\r\n" + GOOD,
    "bytes that are no text": b"\x16\x03\x01\x02\x00\x01\x00",
    "a chunk's size and a space": LINE + HOST + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b" \r\n", 1),
    "a line feed behind a chunk's size": LINE + HOST + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b"\n", 1),
    "a trailer that is no field": LINE + HOST + CHUNKED + b"\r\n" + CHUNKS + b"0\r\nno field\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("data", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_1(gateway: Gateway, worker: FakeWorker, data: bytes) -> None:
    """Is one 400 at once, and the end; what follows on the connection reaches nothing."""
    answer = whole(gateway, data + GOOD)
    assert statuses(answer) == [b"400"]
    assert b"\r\nconnection: close\r\n" in answer
    assert worker.seen.empty()


RIGHT = {
    "one empty line before it": b"\r\n" + LINE + HOST + CLOSE + LENGTH + b"\r\n" + BODY,
    "white space behind the host": LINE + b"Host: gateway \t\r\n" + CLOSE + LENGTH + b"\r\n" + BODY,
    "white space behind the coding": LINE + HOST + CLOSE + CHUNKED.replace(b"\r", b" \r") + b"\r\n" + CHUNKS + LAST,
    "an empty port": LINE + b"Host: localhost:\r\n" + CLOSE + LENGTH + b"\r\n" + BODY,
    "HTTP/1.0 and an upgrade": LINE.replace(b"1.1", b"1.0") + HOST + LENGTH + UPGRADE + b"\r\n" + BODY,
    "an upgrade, and close": LINE + HOST + b"Connection: upgrade, close\r\nUpgrade: h2c\r\n" + LENGTH + b"\r\n" + BODY,
    "a chunk with an extension": LINE + HOST + CLOSE + CHUNKED + b"\r\n" + CHUNKS + b"0;a=b\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("data", RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_served(gateway: Gateway, worker: FakeWorker, data: bytes) -> None:
    """And the worker gets the body as it was sent."""
    assert whole(gateway, data).endswith(COMPLETION)
    assert worker.next().body == BODY


def test_white_space_goes_no_further(gateway: Gateway, worker: FakeWorker) -> None:
    """It is no part of a value."""
    assert statuses(whole(gateway, LINE + HOST + CLOSE + LENGTH + b"Accept: \t a/b \t\r\n\r\n" + BODY)) == [
        b"200"
    ]
    assert ("accept", "a/b") in worker.next().headers


def test_an_old_client_asks_once(gateway: Gateway, worker: FakeWorker) -> None:
    """Whatever it says of upgrades and of staying: behind a request of HTTP/1.0 there is no other."""
    old = (
        LINE.replace(b"1.1", b"1.0")
        + HOST
        + LENGTH
        + b"Connection: Upgrade, keep-alive\r\nUpgrade: x\r\n\r\n"
        + BODY
    )
    answer = whole(gateway, old + old)
    assert statuses(answer) == [b"200"]
    assert worker.next().body == BODY
    assert worker.seen.empty()


@pytest.mark.parametrize(
    "first",
    [
        LINE + HOST + LENGTH + b"Connection: Upgrade, disclosed\r\n\r\n" + BODY,
        LINE + HOST + CHUNKED + b"\r\n" + CHUNKS + b"0\r\nConnection: close\r\n\r\n",
    ],
    ids=["a word that contains close", "a trailer"],
)
def test_what_does_not_close(gateway: Gateway, worker: FakeWorker, first: bytes) -> None:
    """`Connection` is a list of words, and trailers are no headers: the next request is answered too."""
    assert whole(gateway, first + LINE + HOST + CLOSE + LENGTH + b"\r\n" + BODY).count(COMPLETION) == 2


SURPLUS = {
    "a byte that can begin a request": (GOOD, b"x"),
    "a byte that cannot": (GOOD, b"\xff"),
    "a line that is none": (GOOD, b"no http at all\r\n\r\n"),
    "a byte behind the last request": (GOOD.replace(HOST, HOST + CLOSE), b"x"),
    "a request behind the last one": (GOOD.replace(HOST, HOST + CLOSE), GOOD),
    "bytes behind the last chunk": (LINE + HOST + CHUNKED + b"\r\n" + CHUNKS + b"0\r\n\r\n", b"\xff" * 99),
}  # fmt: skip


def test_bytes_behind_a_good_request(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """It gets its answer, whole, and then the connection ends without a reset; it does not matter where it was cut."""
    gateway = start_gateway(GATEWAY_HEAD_TIMEOUT_S=0.5)
    told: dict[str, set[tuple[bytes, ...]]] = {}
    with ExitStack() as stack:
        begun = []
        for name, (good, surplus) in SURPLUS.items():
            data = good + surplus
            for cut in (1, len(good) - len(BODY) - 2, len(good) - 1, len(good), len(good) + 1, len(data)):
                connection = stack.enter_context(gateway.connect(data[:cut]))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                begun.append((name, connection, data[cut:]))
        wait_until(lambda: own_worker.seen.qsize() >= 3 * len(SURPLUS), "those that came whole at the worker")
        for _, connection, rest in begun:
            connection.sendall(rest)
        for name, connection, _ in begun:
            answer = read_to_end(connection)
            assert answer.count(COMPLETION) == 1, name
            told.setdefault(name, set()).add(tuple(statuses(answer)))
    assert told == {
        "a byte that can begin a request": {(b"200", b"408")},
        "a byte that cannot": {(b"200", b"400")},
        "a line that is none": {(b"200", b"400")},
        "a byte behind the last request": {(b"200",)},
        "a request behind the last one": {(b"200",)},
        "bytes behind the last chunk": {(b"200", b"400")},
    }


@pytest.mark.parametrize("field", [b"x: %b", b"%b: x"], ids=["value", "name"])
def test_a_long_trailer(gateway: Gateway, worker: FakeWorker, field: bytes) -> None:
    """Is refused long before its end, whatever the body: what comes behind a body is bounded by itself."""
    chunks = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
    with gateway.connect(LINE + HOST + CHUNKED + b"\r\n" + chunks * 9 + b"0\r\n") as connection:
        connection.sendall((field % (b"y" * 20_000))[:20_000])
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")
    assert worker.seen.empty()


def test_many_trailers(gateway: Gateway, worker: FakeWorker) -> None:
    """Likewise."""
    assert statuses(
        whole(gateway, LINE + HOST + CHUNKED + b"\r\n" + CHUNKS + b"0\r\n" + b"a: b\r\n" * 65)
    ) == [b"400"]
    assert worker.seen.empty()


def test_tiny_chunks(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Time is linear in the bytes, and memory is the body's, not that of a million pieces."""
    gateway = start_gateway()
    for size in (KIB, KIB):  # the first requests of a process cost more
        send_tiny_chunks(gateway, size)
    before = gateway.rss_bytes()
    small = send_tiny_chunks(gateway, 256 * KIB)
    big = send_tiny_chunks(gateway, MIB)
    assert gateway.rss_bytes() - before < 16 * MIB
    assert big <= max(8 * small, 100), "in ticks of the CPU's time"
    assert gateway.chat("alpha").content == COMPLETION


def send_tiny_chunks(gateway: Gateway, size: int) -> int:
    """Uploads so many bytes, two in a chunk; returns the process's CPU time for it, in ticks."""
    before = cpu_ticks(gateway.process.pid)
    chunks = b"".join(b"2\r\n%b\r\n" % part for part in (b'"a', b'" ')) * (size // 4)
    answer = whole(gateway, LINE + HOST + CLOSE + CHUNKED + b"\r\n" + chunks + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")  # read, and no JSON
    return cpu_ticks(gateway.process.pid) - before


def test_large_heads(gateway: Gateway, start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """20 KB of cookies, or a hundred headers, are too much by default, and settings allow them."""
    cookies = post(BODY, *[f"cookie: {name}={'x' * 4000}" for name in "abcde"], "connection: close")
    many = post(BODY, *["x: y"] * 100, "connection: close")
    assert [statuses(whole(gateway, request)) for request in (cookies, many)] == [[b"431"], [b"431"]]
    generous = start_gateway(GATEWAY_MAX_HEAD_BYTES=32768, GATEWAY_MAX_HEADERS=128)
    assert [statuses(whole(generous, request)) for request in (cookies, many)] == [[b"200"], [b"200"]]


def test_without_a_key_no_body_is_read(
    start_gateway: StartGateway, own_worker: FakeWorker, tmp_path: Path
) -> None:
    """A wrong key is told before the body comes, in whatever frames, and nothing of it is waited for."""
    keys = tmp_path / "keys"
    keys.write_text(f"sha256:{hashlib.sha256(b'right').hexdigest()} me\n")
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    for framing in (b"Content-Length: 1000000\r\n", CHUNKED):
        with gateway.connect(
            LINE + HOST + b"Authorization: Bearer wrong\r\n" + framing + b"\r\n"
        ) as connection:
            answer = read_to_end(connection)
        assert statuses(answer) == [b"401"]
        assert b"\r\nconnection: close\r\n" in answer
    assert gateway.event("request", status=401)


# all bodies together


BIG, REST = 3 * MIB, 1000


@pytest.fixture
def tight(start_gateway: StartGateway) -> Gateway:
    """A gateway that may hold 8 MiB of bodies, one of them for small ones."""
    return start_gateway(
        GATEWAY_BODIES_BYTES=8 * MIB, GATEWAY_MAX_TEXT_BYTES=4 * MIB, GATEWAY_BODY_TIMEOUT_S=60
    )


def begin(gateway: Gateway, *, chunked: bool = False) -> socket.socket:
    """A client that has sent all but the rest of a big body, with nothing behind it."""
    framing, size = (CHUNKED, b"%x\r\n" % BIG) if chunked else (b"Content-Length: %d\r\n" % BIG, b"")
    return gateway.connect(LINE + HOST + framing + b"\r\n" + size + b" " * (BIG - REST))


def is_refused(connection: socket.socket) -> bool:
    """Whether it gets a 503 that says when to come again."""
    answer = read_to_end(connection)
    assert statuses(answer) == [b"503"]
    assert b'"code":"overloaded"' in answer
    return b"\r\nretry-after: " in answer


def fits(gateway: Gateway) -> bool:
    """Whether a big body is asked for now; nothing of it is sent."""
    with gateway.connect(declared(BIG, b"Expect: 100-continue\r\n")) as connection:
        return connection.recv(12) == b"HTTP/1.1 100"


def declared(size: int, *fields: bytes) -> bytes:
    """The head of a chat of so many bytes."""
    return LINE + HOST + b"Content-Length: %d\r\n" % size + b"".join(fields) + b"\r\n"


def test_bodies_have_a_bound_together(tight: Gateway, own_worker: FakeWorker) -> None:
    """A body that finds no room is refused before it is read, or as it grows; a small one finds some all the same."""
    with begin(tight), begin(tight):
        wait_until(lambda: not fits(tight), "both to hold their part")
        with tight.connect(declared(BIG)) as third:
            assert is_refused(third)
        with begin(tight, chunked=True) as fourth:
            assert is_refused(fourth)
        assert tight.chat("alpha").content == COMPLETION
        assert tight.metric("gateway_errors_total", code="overloaded") >= 2
    wait_until(lambda: fits(tight), "the room given back")


def test_what_is_declared_and_not_sent_harms_nobody(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """Not even as much of it as would fill the budget twice over: room is held for what has come."""
    gateway = start_gateway()
    big, small = (declared(size) for size in (50 * MIB, MIB))
    with ExitStack() as stack:
        for head in (*[big] * 8, *[small] * 256):
            stack.enter_context(gateway.connect(head))
        for head in (big, small):
            stack.enter_context(gateway.connect(head + b"x"))
        assert gateway.chat("alpha").content == COMPLETION
        with gateway.connect(declared(50 * MIB, b"Expect: 100-continue\r\n")) as another:
            assert another.recv(12) == b"HTTP/1.1 100"
        body = json.dumps(ask("alpha") | {"padding": "x" * 2 * MIB}).encode()
        assert statuses(whole(gateway, post(body, "connection: close"))) == [b"200"]
        assert gateway.metric("gateway_bodies_bytes") < KIB
    wait_until(lambda: gateway.metric("gateway_bodies_bytes") == 0, "all given back")


def test_a_body_that_grows_beyond_the_room(tight: Gateway, own_worker: FakeWorker) -> None:
    """Of three that all fit as they began, one is refused on its way, and the others are served."""
    body = b" " * BIG
    with ExitStack() as stack:
        three = [
            stack.enter_context(tight.connect(declared(BIG, b"Expect: 100-continue\r\n"))) for _ in range(3)
        ]
        assert [one.recv(99)[:12] for one in three] == [b"HTTP/1.1 100"] * 3
        for one in three:
            with suppress(ConnectionError):  # once it is refused it may be read no more
                one.sendall(body[:-REST])
        refused, _, _ = select(three, [], [], WAIT_S)
        assert [is_refused(one) for one in refused] == [True]
        for one in set(three) - set(refused):
            one.sendall(body[:REST])
            assert statuses(one.recv(9999)) == [b"400"]  # read, and no JSON
    assert fits(tight)


ENDINGS = {
    "the client leaves": lambda connection: None,
    "the body is whole": lambda connection: (connection.sendall(b" " * REST), connection.recv(100)),
    "a reset": lambda connection: connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"),
}  # fmt: skip


def test_room_is_given_back_once(tight: Gateway, own_worker: FakeWorker) -> None:
    """However a request ends, two big bodies fit afterwards, and a third does not."""
    for end in (*ENDINGS.values(), *ENDINGS.values()):
        with begin(tight) as connection, begin(tight):
            wait_until(lambda: not fits(tight), "no room")
            end(connection)
        wait_until(lambda: fits(tight), "room")
    with begin(tight, chunked=True) as connection, begin(tight):
        wait_until(lambda: not fits(tight), "no room")
        connection.sendall(b" " * REST + b"no chunk")
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")
        wait_until(lambda: fits(tight), "room")


def test_a_body_at_its_worker_holds_no_room(tight: Gateway, own_worker: FakeWorker) -> None:
    """Once the worker answers it is let go: a long stream behind a big body is no big body."""
    body = json.dumps(ask("alpha", "sse", chunks=2, hold=1) | {"padding": "x" * BIG}).encode()
    with ExitStack() as stack:
        for _ in range(3):
            streaming = stack.enter_context(tight.connect(post(body)))
            own_worker.next()
            assert streaming.recv(20).startswith(b"HTTP/1.1 200 ")
        assert fits(tight)
