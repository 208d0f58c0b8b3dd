"""The decoder of chunks, in whatever pieces the bytes come, says what a slow reading of all of them says."""

import re

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from gateway.framing import BadFraming, Chunked, Sized

from tests.fuzz.harness import main, pieces

SEEDS = (
    b"\x00" + b"5\r\nhello\r\n0\r\n\r\n",
    b"\x03\x01\x02\x03" + b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nx: 1\r\n\r\nmore",
    b"\x02\x0a\x0a" + b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n",
)
Outcome = tuple[bytes, bool, bool] | None


def target(data: bytes) -> None:
    parts = pieces(data)
    assert decoded(parts) == reference(b"".join(parts))
    sized(parts)


def decoded(parts: list[bytes]) -> Outcome:
    """The payload, whether it is complete and whether more came; None for bad framing. As a connection reads it."""
    chunks, payload = Chunked(), b""
    try:
        for part in parts:
            if chunks.is_one_chunk(part):
                payload += part[part.index(b"\r\n") + 2 : -2]
            else:
                payload += chunks.feed(part)
    except BadFraming:
        return None
    return (payload, True, chunks.surplus) if chunks.complete else (payload, False, False)


def reference(data: bytes) -> Outcome:
    """The same by RFC 9112, slowly and all at once."""
    payload, at = b"", 0
    while True:
        line, end, _ = data[at:].partition(b"\r\n")
        if not end:
            return payload, False, False
        if re.fullmatch(rb"[0-9A-Fa-f]{1,16}([ \t]*;[^\r\n]*)?", line) is None:
            return None
        size = int(re.split(rb"[ \t;]", line)[0], 16)
        at += len(line) + 2
        if not size:
            return payload, *trailer(data[at:])
        payload += data[at : at + size]
        at += size
        if len(data) < at + 2:
            return payload, False, False
        if data[at : at + 2] != b"\r\n":
            return None
        at += 2


def trailer(data: bytes) -> tuple[bool, bool]:
    """Whether the fields behind the last chunk are complete, and whether more follows."""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end or not line:
            return end != b"", end != b"" and data != b""


def sized(parts: list[bytes]) -> None:
    """A body with a length: that many bytes, and not one more."""
    whole = b"".join(parts)
    length = len(whole) * 2 // 3
    body, payload = Sized(length), b""
    for part in parts:
        if body.complete:
            break
        payload += body.feed(part)
    assert (payload, body.complete) == (whole[:length], True)


if __name__ == "__main__":
    main(target, SEEDS)
