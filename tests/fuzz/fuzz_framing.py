"""The decoder of chunks, in whatever pieces the bytes come, says what a slow reading of all of them says."""

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from gateway.http.framing import BadFraming, Chunked, Sized

from tests.fuzz.harness import main, pieces

SEEDS = (
    b"\x00" + b"5\r\nhello\r\n0\r\n\r\n",
    b"\x03\x01\x02\x03" + b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nx: 1\r\n\r\nmore",
    b"\x02\x0a\x0a" + b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n",
)
Outcome = tuple[bytes, bool, int] | None
TEXT = frozenset(b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)))
NAME = frozenset(
    b"!#$%&'*+-.^_`|~" + bytes(range(0x30, 0x3A)) + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B))
)
HEX = frozenset(b"0123456789abcdefABCDEF")


def target(data: bytes) -> None:
    parts = pieces(data)
    assert decoded(parts) == reference(b"".join(parts))
    sized(parts)


def decoded(parts: list[bytes]) -> Outcome:
    """The payload, whether it is complete, how much is behind it; None for bad framing. As a connection reads it."""
    chunks, payload = Chunked(), b""
    for at, part in enumerate(parts):
        try:
            payload += part[part.index(b"\r\n") + 2 : -2] if chunks.is_one_chunk(part) else chunks.feed(part)
        except BadFraming:
            return None
        if chunks.complete:
            return payload, True, chunks.surplus + len(b"".join(parts[at + 1 :]))
    return payload, False, 0


def reference(data: bytes) -> Outcome:
    """The same by RFC 9112, slowly and all at once."""
    payload, at = b"", 0
    while True:
        line, end, _ = data[at:].partition(b"\r\n")
        if not (is_size(line) if end else is_size_begun(line)):
            return None
        if not end:
            return payload, False, 0
        size = int(line.split(b";")[0], 16)
        at += len(line) + 2
        if not size:
            return behind(payload, data[at:])
        payload += data[at : at + size]
        at += size
        if not b"\r\n".startswith(data[at : at + 2]):
            return None
        if len(data) < at + 2:
            return payload, False, 0
        at += 2


def behind(payload: bytes, data: bytes) -> Outcome:
    """The fields behind the last chunk, of which there are 64 at most."""
    for _ in range(64 + 1):
        line, end, data = data.partition(b"\r\n")
        if not end:
            return (payload, False, 0) if is_field_begun(line) else None
        if not line:
            return payload, True, len(data)
        if not is_field(line):
            return None
    return None


def is_size(line: bytes) -> bool:
    size, _, extension = line.partition(b";")
    return 1 <= len(size) <= 16 and HEX.issuperset(size) and TEXT.issuperset(extension)


def is_field(line: bytes) -> bool:
    name, colon, value = line.partition(b":")
    frames = name.lower() in (b"content-length", b"transfer-encoding", b"host")
    return name != b"" and NAME.issuperset(name) and colon != b"" and TEXT.issuperset(value) and not frames


def is_size_begun(line: bytes) -> bool:
    """Whether something can come behind it that makes it a size's line."""
    return not line or is_size(line.removesuffix(b"\r"))


def is_field_begun(line: bytes) -> bool:
    name, colon, value = line.removesuffix(b"\r").partition(b":")
    return (
        line in (b"", b"\r")
        or NAME.issuperset(line)
        or is_field(b"x:" + value if name and NAME.issuperset(name) and colon else line)
    )


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
