"""Any bytes in any pieces: what is read as a head h11 reads too, and the same; all else is the client's fault."""

import atheris
import h11

with atheris.instrument_imports(include=["gateway"]):
    from gateway.api.errors import GatewayError
    from gateway.server.request_head import ENDLESS, Head, HeadReader, decoded, is_plain, path_in

from tests.fuzz.harness import main, pieces

MAX = 600
SEEDS = (
    b"\x00GET /v1/models HTTP/1.1\r\nhost: gateway:8000\r\n\r\n",
    b"\x02\x05\x20POST /v1/chat%2fcompletions?x HTTP/1.1\r\nHost: [::1]\r\ncontent-length: 3 \r\n\r\nabc",
    b"\x00POST http://a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"\x00\r\nPOST / HTTP/1.0\r\nHost: a:\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\nX: y\r\n z\r\n\r\n",
    b"\x00CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
)


def read(parts: list[bytes]) -> tuple[Head | None, int]:
    """The head, or the status of its refusal, 0 while more must come."""
    reader = HeadReader(MAX, 8)
    try:
        for part in parts:
            if (head := reader.feed(part, 0)) is not None:
                return head, 200
    except GatewayError as error:
        path_in(reader.beginning)
        return None, error.status
    return None, 0


def target(data: bytes) -> None:
    parts = pieces(data)
    whole = b"".join(parts)
    head, status = read(parts)
    assert status in (0, 200, 400, 431)
    assert status == read([whole])[1], "it depends on how it is cut"
    if (
        head is not None and head.length < ENDLESS
    ):  # h11 takes no longer number; here it is a body that is too large
        compare(head, whole)


def compare(head: Head, data: bytes) -> None:
    referee = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * MAX)
    referee.receive_data(data.removeprefix(b"\r\n"))
    seen = referee.next_event()
    assert isinstance(seen, h11.Request)
    assert (seen.method, seen.target, seen.http_version == b"1.0") == (
        head.method,
        head.target,
        head.http_1_0,
    )
    assert [name for name, _ in seen.headers] == [name for name, _ in head.fields]
    path = decoded(head.path)
    assert not is_plain(path) or not set(path) & set(b"\r\n ?#\x00")


if __name__ == "__main__":
    main(target, SEEDS)
