"""Which headers travel: by a list of what may reach a worker, and one of what may not reach a client."""

from hypothesis import given
from hypothesis import strategies as some

from gateway.http.headers import TO_WORKER, request_head, response_headers

names = some.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20).map(str.encode)
headers = some.lists(
    some.tuples(names | some.sampled_from(sorted(TO_WORKER)), some.binary(max_size=5)), max_size=12
)


@given(headers)
def test_only_listed_headers_reach_a_worker(client: list[tuple[bytes, bytes]]) -> None:
    """Whatever a client sends, a worker gets the listed ones, our own, and one length that is right."""
    printable = [(name, value.hex().encode()) for name, value in client]
    head = request_head(b"POST", b"/v1/x", b"w:1", printable, 2, b"id-1")
    *lines, end, rest = head.split(b"\r\n")
    passed = [name + b": " + value for name, value in printable if name in TO_WORKER]
    assert lines[0] == b"POST /v1/x HTTP/1.1"
    assert sorted(lines[1:]) == sorted([b"host: w:1", b"x-request-id: id-1", b"content-length: 2", *passed])
    assert (end, rest) == (b"", b"")


@given(headers, some.integers(0, 3 * 10**6))
def test_a_request_has_its_place_in_the_engine_by_one_header(
    client: list[tuple[bytes, bytes]], priority: int
) -> None:
    """The gateway's, whatever the client sends."""
    sent = [*[(name, value.hex().encode()) for name, value in client], (b"x-vllm-priority", b"-1")]
    lines = request_head(b"POST", b"/v1/x", b"w:1", sent, 2, b"id-1", priority).split(b"\r\n")
    assert [line for line in lines if b"priority" in line] == [b"x-vllm-priority: %d" % priority]


@given(some.lists(names, max_size=5), headers)
def test_no_header_that_connection_names_reaches_a_client(
    named: list[bytes], others: list[tuple[bytes, bytes]]
) -> None:
    """Headers that any Connection field names are the worker's connection's own business."""
    fields = [(b"connection", b" , ".join(part).upper()) for part in (named[:2], named[2:])]
    kept = response_headers([*fields, *((name, b"1") for name in named), *others], b"id-1")
    ours = {b"x-request-id", b"cache-control", b"x-accel-buffering"}
    assert not {name for name, _ in kept} - ours & {*named, b"connection"}


def test_hop_by_hop_headers_end_here() -> None:
    """What a worker says of its own connection or itself is dropped; the rest passes in order."""
    hop = [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ]
    told = [
        (b"content-type", b"text/plain"),
        *((name, b"x") for name in hop),
        (b"server", b"uvicorn"),
        (b"x-a", b"1"),
    ]
    assert response_headers(told, b"id-1") == [
        (b"content-type", b"text/plain"), (b"x-a", b"1"), (b"x-request-id", b"id-1"), (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
    ]  # fmt: skip
