"""A worker sends any bytes in any pieces, twice, and leaves or falls silent: the client gets the worker's answer as h11
reads it, or an error; never one that was cut and looks whole, and always an end. No callback takes above 50 ms of CPU.

The input: what the client asks and how the worker ends (a bit each), how many pieces, their sizes, and the bytes; those
behind `NEXT` are the answer to a second request.
"""

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from tests.worker_wire import Asking, Good, cut

from tests.fuzz.harness import Slowest, main
from tests.simulation import Stage, Stages, surely

NEXT = b"\xff\x00\xff"
STREAM, OLD, LEAVES, RESETS, WAITS, SLOW = 1, 2, 4, 8, 16, 32  # of the first byte
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"content-type: application/json\r\ncontent-length: 14\r\n\r\n" + b'{"object":"x"}'
SSE = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
SEEDS = (
    b"\x00\x00" + JSON + NEXT + JSON,
    b"\x00\x02\x09\x30" + JSON + b"HTTP/1.1 200 OK\r\n" + NEXT + JSON,
    b"\x01\x02\x50\x09" + SSE + b'10\r\ndata: {"a":12}\n\n\r\n' + DONE + NEXT + JSON,
    b"\x05\x00" + SSE + b'10\r\ndata: {"a":12}\n\n\r\n' + NEXT + JSON,
    b"\x14\x00" + OK + b"content-length: 20\r\n\r\nabc" + NEXT + JSON,
    b"\x08\x01\x20" + OK + b"content-length: 20\r\n\r\nabc" + NEXT + JSON,
    b"\x04\x00" + OK + b"connection: close\r\n\r\nto the end" + NEXT + JSON,
    b"\x06\x00" + OK + b"transfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nx: y\r\n\r\n",
    b"\x00\x01\x19HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: a\r\n\r\n" + JSON + NEXT + JSON,
    b"\x00\x00HTTP/1.1 204 No\r\n\r\n" + NEXT + b"HTTP/1.1 304 No\r\ncontent-length: 9\r\n\r\n",
    b"\x00\x00HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    + NEXT
    + JSON,
    b"\x00\x00HTTP/1.0 200 OK\r\n\r\nold",
    b"\x00\x00" + OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd" + NEXT + JSON,
    b"\x21\x00" + SSE + DONE + NEXT + JSON,
)
stages = Stages()
slowest = Slowest()


def target(data: bytes) -> None:
    surely(lambda: play(data))
    slowest.note(stages.worst)


def play(data: bytes) -> None:
    stage = stages.take()
    flags, count = (data[0], data[1] % 16) if len(data) > 1 else (0, 0)
    sizes, (first, _, second) = data[2 : 2 + count], data[2 + count :].partition(NEXT)
    in_pieces = asked(stage, flags, [cut(part, sizes) for part in (first, second)])
    if sizes:
        at_once = asked(stage, flags, [cut(part, ()) for part in (first, second)])
        assert in_pieces == at_once, f"it depends on how it is cut: {data!r}"
    stages.give_back(stage)


def asked(stage: Stage, flags: int, answers: list[list[bytes]]) -> list[Good | None]:
    """Two requests, each with the pieces of its answer; what the client had of each in the end."""
    asking = Asking(stage)
    found: list[Good | None] = []
    for pieces in answers:
        exchange = asking.ask(stream=bool(flags & STREAM), http_1_0=bool(flags & OLD))
        if flags & SLOW:
            asking.line.stop_reading()
        for piece in pieces:
            exchange.send(piece)
        if flags & WAITS:
            stage.look(20)
        if flags & LEAVES:
            exchange.leave()
        elif flags & RESETS:
            exchange.reset()
        asking.line.read_on()
        stage.loop.settle()
        if not flags & (LEAVES | RESETS):
            stage.look(1000)
        found.append(exchange.judge())
    asking.end()
    return found


if __name__ == "__main__":
    main(target, SEEDS)
