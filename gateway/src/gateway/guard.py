"""What a request's head must be before anything is done with it. llhttp refuses the rest. Pure.

A head that two parsers could read differently is refused: behind a proxy it could carry a second request.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import httptools

from gateway.errors import GatewayError, HeadTooLarge, InvalidRequest, RequestTooLarge

MOST_HEADERS: Final = 64
MOST_HEAD_BYTES: Final = 16 * 1024
HOST: Final = re.compile(rb"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
FRAMING_FIELDS: Final = (b"content-length", b"transfer-encoding")
Headers = list[tuple[bytes, bytes]]


def problem(target: bytes, version: str, fields: Headers) -> GatewayError | None:
    """Why a head is refused, or None. `fields` have lower-case names."""
    if version not in ("1.1", "1.0"):
        return InvalidRequest("The request must be of HTTP/1.1")
    size, hosts = len(target), []
    for name, value in fields:
        size += len(name) + len(value) + 4
        if name == b"host":
            hosts.append(value)
    if len(fields) > MOST_HEADERS or size > MOST_HEAD_BYTES:
        return head_too_large()
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        return InvalidRequest("The request must have one Host header")
    if hosts and HOST.fullmatch(hosts[0]) is None:
        return InvalidRequest("The Host header is not a host and port")
    return framing_problem(version, fields)


def framing_problem(version: str, fields: Headers) -> GatewayError | None:
    """Whether the body's length could be read in two ways."""
    framing = [(name, value) for name, value in fields if name in FRAMING_FIELDS]
    if len(framing) > 1:
        return InvalidRequest("The request must have one Content-Length or one Transfer-Encoding header")
    if framing and framing[0][0] == b"transfer-encoding":
        if version == "1.0":
            return InvalidRequest("HTTP/1.0 knows no Transfer-Encoding")
        if framing[0][1].lower() != b"chunked":
            return InvalidRequest("The only Transfer-Encoding that is taken is chunked")
    return None


def head_too_large() -> GatewayError:
    return HeadTooLarge(
        f"The request has more than {MOST_HEADERS} headers or {MOST_HEAD_BYTES} bytes of them"
    )


def plain_path(target: bytes) -> bytes:
    """The path of a request's target in its plain form, decoded, whatever the client has spelt around it."""
    try:
        return unquote_to_bytes(httptools.parse_url(target).path or b"")
    except httptools.HttpParserInvalidURLError:
        return b""


def without_upgrade(method: bytes, target: bytes, fields: Headers) -> bytes:
    """The head of a request without its wish to change the protocol. Raises HttpParserError if that was its purpose."""
    kept = [(name, value) for name, value in fields if name not in (b"upgrade", b"connection")]
    if len(kept) == len(fields):
        raise httptools.HttpParserError(f"{method!r} asks for a tunnel")
    if any(name == b"connection" and b"close" in value.lower() for name, value in fields):
        kept.append((b"connection", b"close"))
    lines = [b"%b %b HTTP/1.1" % (method, target), *(b"%b: %b" % field for field in kept)]
    return b"\r\n".join([*lines, b"", b""])


def body_too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than {limit} bytes, the most that is taken")
