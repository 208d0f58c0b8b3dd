"""A client's connection takes any bytes in any pieces, with pauses, ends and time between them: no request but those
that h11 finds in the same bytes, the same answers however they were cut, no callback above 50 ms of CPU, and an end.

The input: how many events, each in two bytes (see `EVENTS`), and the bytes that these send; the rest is sent at last.
"""

from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from tests.client_wire import Client

from tests.fuzz.harness import Slowest, main
from tests.simulation import Stages, surely

GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /n HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SEEDS = (
    b"\x00" + GET % b"now",
    b"\x02\x00\x09\x04\x08" + GET % b"later" + GET % b"stream" + GET % b"huge",
    b"\x03\x00\x30\x05\x00\x07\x00" + GET % b"huge" + GET % b"broken",
    b"\x02\x00\x80\x06\x00" + GET % b"wait" + GET % b"now",
    b"\x00" + CHUNKED + b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nx: 1\r\n\r\n" + GET % b"now",
    b"\x02\x00\x60\x03\x20"
    + b"POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\nExpect: 100-continue\r\n\r\n0123456789",
    b"\x01\x01\x05"
    + b"POST /n HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3 \r\nX:  y  z \r\n\r\nabc"
    + GET % b"n",
    b"\x00GET http://a/n?b HTTP/1.0\r\nHost: [::1]:80\r\nConnection: keep-alive\r\n\r\n" + GET % b"n",
    b"\x01\x00\x30POST /n HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n",
    b"\x00CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"\x02\x02\xff\x01\xff" + CHUNKED + b"2\r\nab\r\n0\r\nx: yyyyyyyyyyyyyyyyyyyyyyyy\r\n\r\n",
    b"\x00\r\nHEAD /n HTTP/1.1\r\nHost: a\r\nConnection: x, close, y\r\nContent-Length: 0\r\n\r\n"
    + GET % b"n",
)
Step = Callable[[Client, int, bytes], bytes]


def send(client: Client, size: int, rest: bytes) -> bytes:
    client.send(rest[:size])
    return rest[size:]


def flood(client: Client, size: int, rest: bytes) -> bytes:
    """The next sixteen bytes many times over, in one piece."""
    client.send(rest[:16] * (size * 8))
    return rest[16:]


def drip(client: Client, size: int, rest: bytes) -> bytes:
    """The next bytes one by one."""
    for at in range(min(size, 32)):
        client.send(rest[at : at + 1])
    return rest[min(size, 32) :]


def wait(client: Client, size: int, rest: bytes) -> bytes:
    client.wait(size / 4)
    return rest


def stop_reading(client: Client, _size: int, rest: bytes) -> bytes:
    client.stop_reading()
    return rest


def read_on(client: Client, _size: int, rest: bytes) -> bytes:
    client.read_on()
    return rest


def leave(client: Client, size: int, rest: bytes) -> bytes:
    if size % 2:
        client.leave()
    else:
        client.reset()
    return rest


EVENTS: tuple[Step, ...] = (send, drip, flood, send, wait, stop_reading, leave, read_on)
ONLY_SENDS = {send, drip, flood}
stages = Stages()
slowest = Slowest()


def target(data: bytes) -> None:
    surely(lambda: play(data))
    slowest.note(stages.worst)


def play(data: bytes) -> None:
    stage = stages.take()
    count = data[0] % 16 if data else 0
    script, rest = data[1 : 1 + 2 * count], data[1 + 2 * count :]
    steps = [
        (EVENTS[kind % len(EVENTS)], size) for kind, size in zip(script[::2], script[1::2], strict=False)
    ]
    client = Client(stage)
    for step, size in steps:
        rest = step(client, size, rest)
    client.send(rest)
    if steps and {step for step, _ in steps} <= ONLY_SENDS:
        in_pieces = client.outcome_soon()
        at_once = Client(stage)
        at_once.send(client.sent)
        assert in_pieces == at_once.outcome_soon(), f"it depends on how it is cut: {client.sent!r}"
        at_once.end()
    client.end()
    stages.give_back(stage)


if __name__ == "__main__":
    main(target, SEEDS)
