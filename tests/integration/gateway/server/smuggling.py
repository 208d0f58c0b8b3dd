"""Payloads that two readers of HTTP may read differently, made from families of what is written wrong or rarely.

Each is a whole connection's bytes, without the canary that the test sends behind it. TOKEN marks every body, so that
a request at the worker tells which payload it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

TOKEN = b"TOKEN6"
CHAT = b"/v1/chat/completions"
BODY = b'{"model":"alpha","user":"TOKEN6"}'
HIDDEN_BODY = b'{"model":"alpha","user":"TOKEN6","hidden":1}'
SIZE = b"%d" % len(BODY)
HEX = b"%x" % len(BODY)
LAST = b"0\r\n\r\n"
CHUNKS = HEX + b"\r\n" + BODY + b"\r\n" + LAST
LENGTH, CODING = b"Content-Length: " + SIZE, b"Transfer-Encoding: chunked"
HOST = b"Host: gateway"
Family = Iterator[tuple[str, bytes]]


def request(
    *fields: bytes, body: bytes = b"", method: bytes = b"POST", target: bytes = CHAT, version: bytes = b"HTTP/1.1",
    host: bytes | None = HOST,
) -> bytes:  # fmt: skip
    lines = [b"%b %b %b" % (method, target, version), *([host] if host is not None else []), *fields]
    return b"\r\n".join([*lines, b"", b""]) + body


HIDDEN = request(b"Content-Length: %d" % len(HIDDEN_BODY), body=HIDDEN_BODY)
GOOD = request(LENGTH, body=BODY)


def printable(value: bytes) -> str:
    return value.decode("latin-1").encode("unicode_escape").decode()


def lengths() -> Family:
    """Content-Length: doubled, listed, signed, in other digits, with odd white space, too large."""
    values = (
        b"%b, %b", b"%b,%b", b"%b;", b"+%b", b"-%b", b"0%b", b"0000000000000000000000%b", b"0x%b", b"%b.0",
        b"%be0",
        b'"%b"', b"%b\x00", b"%b\x0b", b"%b\x0c", b"%b\xa0", b"\xa0%b", b"%b ", b"\t%b\t", b"  %b",
        b"%b %b", b"%b,",
        b",%b", b"%b_0", b"%b#", b"chunked,%b", b"", b" ", b"abc", b"-1", b"18446744073709551616",
        b"9223372036854775808",
        b"99999999999999999999999999", b"4294967329", b"\xd9\xa3\xd9\xa3", b"\xef\xbc\x93\xef\xbc\x93",
        b"1e2",
    )  # fmt: skip
    for value in values:
        filled = value.replace(b"%b", SIZE)
        yield printable(filled), request(b"Content-Length: " + filled, body=BODY)
    other = b"Content-Length: 0"
    yield "twice the same", request(LENGTH, LENGTH, body=BODY)
    yield "two, the second 0", request(LENGTH, other, body=BODY)
    yield "two, the first 0", request(other, LENGTH, body=BODY)
    yield "two, in other letters", request(LENGTH, b"CONTENT-LENGTH: 0", body=BODY)
    yield "0 and a body that is a request", request(other, body=HIDDEN)
    yield "none and a body that is a request", request(body=HIDDEN)
    yield "none and a body", request(body=BODY)
    yield "too short by one", request(b"Content-Length: %d" % (len(BODY) - 1), body=BODY)
    yield "too long by one", request(b"Content-Length: %d" % (len(BODY) + 1), body=BODY)
    yield "a request behind the body", request(LENGTH, body=BODY + HIDDEN)
    yield (
        "a request inside the body",
        request(b"Content-Length: %d" % (len(BODY) + len(HIDDEN)), body=BODY + HIDDEN),
    )
    yield "without a space", request(b"Content-Length:" + SIZE, body=BODY)


def both() -> Family:
    """A length and a coding, whichever a reader believes."""
    in_chunks = LAST + HIDDEN
    covered = b"Content-Length: %d" % len(in_chunks)
    for name, first, second in (("length first", covered, CODING), ("coding first", CODING, covered)):
        yield f"{name}, a request behind the last chunk", request(first, second, body=in_chunks)
        yield (
            f"{name}, agreeing",
            request(first.replace(covered, LENGTH), second.replace(covered, LENGTH), body=CHUNKS),
        )
        yield f"{name}, HTTP/1.0", request(first, second, body=in_chunks, version=b"HTTP/1.0")
    yield (
        "length 4, a request as a chunk",
        request(b"Content-Length: 4", CODING, body=b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + LAST),
    )
    yield "length 0 and chunks", request(b"Content-Length: 0", CODING, body=CHUNKS)
    yield "length, coding, length", request(LENGTH, CODING, LENGTH, body=CHUNKS)
    yield "length and an identity", request(LENGTH, b"Transfer-Encoding: identity", body=BODY)
    yield "length and an empty coding", request(LENGTH, b"Transfer-Encoding:", body=BODY)
    yield "length and TE", request(LENGTH, b"TE: chunked", body=BODY)
    yield "length with a space before the colon", request(b"Content-Length : 4", CODING, body=CHUNKS)


def codings() -> Family:
    """Transfer-Encoding so that some readers see chunked and some do not; a length covers a hidden request."""
    values = (
        b"xchunked", b"chunked, identity", b"identity, chunked", b"chunked, chunked", b"gzip, chunked",
        b"chunked, gzip",
        b"identity", b"CHUNKED", b"Chunked", b"cHuNkEd", b"chunked;q=1", b"chunked ; x", b"chunked ",
        b" \tchunked\t",
        b"chunked\x0b", b"\x0bchunked", b"chunked\x0c", b"chunked\x00", b"\x00chunked", b'"chunked"',
        b"chunked,",
        b",chunked", b"chunk", b"chunkedd", b"chunke\xc4\x91", b"chunked\x85", b"\xa0chunked", b"",
        b"chunked chunked",
        b"chunked\tx", b"\r\n chunked", b"\r\n\tchunked", b"x\r\n chunked", b"chunked\r\n x",
        b"identity\nchunked",
    )  # fmt: skip
    fields = [b"Transfer-Encoding: " + value for value in values] + [
        b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked",
        b"\tTransfer-Encoding: chunked", b"Transfer_Encoding: chunked", b"Transfer-Encoding\x00: chunked",
        b"Transfer-Encoding\x0b: chunked", b"Transfer\xadEncoding: chunked", b"TRANSFER-ENCODING:chunked",
        b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
        b"X: y\r\r\nTransfer-Encoding: chunked",
        b"X: y\r\n Transfer-Encoding: chunked", b"X:\nTransfer-Encoding: chunked",
        b"\"Transfer-Encoding\": chunked",
        b"Transfer-Encoding chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b"Content-Encoding: chunked",
        b"Foo: chunked",
    ]  # fmt: skip
    for field in fields:
        yield f"alone: {printable(field)}", request(field, body=CHUNKS)
    for field in fields[::3]:
        body = LAST + HIDDEN
        yield (
            f"with a length: {printable(field)}",
            request(b"Content-Length: %d" % len(body), field, body=body),
        )


def chunks() -> Family:
    """A chunk's size line and ends."""
    sizes = (
        b"%b", b"0x%b", b"+%b", b"-%b", b" %b", b"%b ", b"\t%b", b"%b\t", b"2 1", b"0%b",
        b"0000000000000000%b",
        b"00000000000000000000000000%b", b"FFFFFFFFFFFFFFFF", b"FFFFFFFFFFFFFFFE", b"100000000000000%b",
        b"1000000000000000000%b", b"7fffffffffffffff", b"g", b"", b"%b;", b"%b;a=b", b"%b ;a",
        b"%b; a = b", b'%b;a="b;c"',
        b'%b;a="b', b"%b;a\nb", b"%b;a\rb", b"%b;\x00", b"%b;a\xff", b"%b;\x7f", b"%b,", b"%b\x00", b"2_1",
        b"%bh", b"%b.0",
        b"%b\r", b"%b\n", b"\r\n%b", b"%b;" + b"x" * 3000, b"%b" + b" " * 100, b"%b\x0b", b"\x0c%b",
        b"%b=1", b"%b#",
    )  # fmt: skip
    for size in sizes:
        line = size.replace(b"%b", HEX)
        yield f"size {printable(line[:24])}", request(CODING, body=line + b"\r\n" + BODY + b"\r\n" + LAST)
    one_by_one = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY[:24])
    ends = (
        ("a line feed behind the size", HEX + b"\n" + BODY + b"\r\n" + LAST),
        ("a carriage return behind the size", HEX + b"\r" + BODY + b"\r\n" + LAST),
        ("a line feed behind the data", HEX + b"\r\n" + BODY + b"\n" + LAST),
        ("a carriage return behind the data", HEX + b"\r\n" + BODY + b"\r" + LAST),
        ("nothing behind the data", HEX + b"\r\n" + BODY + LAST),
        ("two bytes behind the data", HEX + b"\r\n" + BODY + b"XX" + LAST),
        ("data longer by one", HEX + b"\r\n" + BODY + b"X\r\n" + LAST),
        ("data shorter by one", b"22\r\n" + BODY + b"\r\n" + LAST),
        ("an end without carriage returns", HEX + b"\r\n" + BODY + b"\r\n0\n\n"),
        ("an end with one", HEX + b"\r\n" + BODY + b"\r\n0\r\n\n"),
        ("an end with the other", HEX + b"\r\n" + BODY + b"\r\n0\n\r\n"),
        ("an end with carriage returns alone", HEX + b"\r\n" + BODY + b"\r\n0\r\r"),
        ("an end of five zeros", HEX + b"\r\n" + BODY + b"\r\n00000\r\n\r\n"),
        ("an end with an extension", HEX + b"\r\n" + BODY + b"\r\n0;last\r\n\r\n"),
        ("an end 0x0", HEX + b"\r\n" + BODY + b"\r\n0x0\r\n\r\n"),
        ("an end -0", HEX + b"\r\n" + BODY + b"\r\n-0\r\n\r\n"),
        ("an end of a space and 0", HEX + b"\r\n" + BODY + b"\r\n 0\r\n\r\n"),
        ("no end", HEX + b"\r\n" + BODY + b"\r\n"),
        ("no bytes at all", b""),
        ("one byte a chunk", one_by_one + b"9\r\n" + BODY[24:] + b"\r\n" + LAST),
        ("a request behind the end", CHUNKS + HIDDEN),
        ("a request as an extension", HEX + b";\r\n" + BODY + b"\r\n0;" + HIDDEN + b"\r\n"),
        ("a request behind an overflowing size", b"1000000000000000%b\r\n" % HEX + BODY + b"\r\n" + LAST + HIDDEN),
        ("an empty line behind the end", CHUNKS + b"\r\n" + HIDDEN),
        ("the end twice", CHUNKS + LAST + HIDDEN),
    )  # fmt: skip
    for name, body in ends:
        yield name, request(CODING, body=body)


def trailers() -> Family:
    """Fields behind the last chunk: none of them may become one of the request."""
    fields = (
        b"X: y", b"Content-Length: 0", b"Content-Length: 44", b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Host: other", b"Connection: close", b"Connection: keep-alive", b"Authorization: Bearer x",
        b"Upgrade: h2c",
        b"X : y", b"X: y\r\n z", b" X: y", b"X: y\nZ: z", b"X: y\rZ: z", b"X: \x00", b"X", b": y",
        b"X\x00: y", b"X: \xff",
        b"X: " + b"y" * 20000, b"X: y\r\n" * 99 + b"X: y", b"POST / HTTP/1.1", b"X: y\n",
    )  # fmt: skip
    for field in fields:
        body = HEX + b"\r\n" + BODY + b"\r\n0\r\n" + field + b"\r\n\r\n"
        name = printable(field[:24]) + ("..." if len(field) > 24 else "")
        yield name, request(CODING, body=body)
    declared = HEX + b"\r\n" + BODY + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
    yield "declared", request(CODING, b"Trailer: X-Sum", body=declared)
    yield "without an end, a request behind", request(CODING, body=CHUNKS[:-2] + HIDDEN)


def fields() -> Family:
    """Names, values and ends of the head's lines."""
    odd = (
        b": y", b" : y", b"X Y: z", b"X : y", b"X\t: y", b"X\x00: y", b"X\xff: y", b"X\xc3\xa9: y",
        b"X(: y", b"X,: y",
        b"X/: y", b"X@: y", b'X": y', b"X{: y", b"X\x7f: y", b"X\x01: y", b"!#$%&'*+-.^_`|~: y", b"X",
        b"X;", b"X: \x00",
        b"X: a\x00b", b"X: \x01", b"X: \x7f", b"X: \xff", b"X: \xc3\xa9", b"X: a\rb", b"X: a\nb",
        b"X: a\n", b"X: a\r",
        b"X: a\r\n b", b"X: a\r\n\tb", b"X: a\r\n ", b"X:", b"X: ", b"X:\t\t", b"X::", b"X:a:b", b" X: y",
        b"\tX: y",
        b"X: y\x0b", b"\x00", b"\x0b: y", b"X: \x08", b"X: \x1b[0m", b"X: " + b"y" * 8000,
        b"X: " + b"y" * 20000,
        b"X" * 8000 + b": y", b"\r", b"\n", b"X: y\r\r", b"X: y\n\r", b"X: y\n\nPOST / HTTP/1.1",
    )  # fmt: skip
    for field in odd:
        name = printable(field[:24]) + ("..." if len(field) > 24 else "")
        yield f"{name} ({len(field)} bytes)", request(field, LENGTH, body=BODY)
    yield "an odd name before the host", request(b"X : y", HOST, LENGTH, body=BODY, host=None)
    yield "white space before the first field", request(LENGTH, body=BODY, host=b" Host: gateway")
    yield "line feeds alone", GOOD.replace(b"\r\n", b"\n")
    yield "carriage returns alone", GOOD.replace(b"\r\n", b"\r")
    yield "one line feed alone", GOOD.replace(b"\r\n", b"\n", 1)
    yield "an end with line feeds alone", GOOD.replace(b"\r\n\r\n", b"\n\n")
    yield "an end with the second alone", GOOD.replace(b"\r\n\r\n", b"\r\n\n")
    yield "an end with the first alone", GOOD.replace(b"\r\n\r\n", b"\n\r\n")
    yield "64 fields", request(*[b"X: y"] * 62, LENGTH, body=BODY)
    yield "65 fields", request(*[b"X: y"] * 63, LENGTH, body=BODY)
    yield "300 fields", request(*[b"X: y"] * 298, LENGTH, body=BODY)


def lines() -> Family:
    """The request line: version, spaces, method, target."""
    versions = (
        b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/3", b"HTTP/0.9", b"HTTP/0.0",
        b"http/1.1",
        b"Http/1.1", b"HTTP/1.1x", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/1", b"HTTP/1.",
        b"HTTP/.1", b"HTTP 1.1",
        b"HTTP/1,1", b"HTTPS/1.1", b"RTSP/1.0", b"ICE/1.0", b"SIP/2.0", b"HTTP/1.1 ", b"HTTP/1.1\t",
        b"HTTP/1.1 HTTP/1.1",
        b"HTTP/+1.1", b"HTTP/1.1\x00", b"", b"HTTP/", b"HTTP/\xef\xbc\x91.1", b"HTTP/1.1\r", b"HTTP\\1.1",
    )  # fmt: skip
    for version in versions:
        yield f"version {printable(version)}", request(LENGTH, body=BODY, version=version)
    methods = (
        b"post", b"Post", b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT",
        b"PRI", b"SOURCE",
        b"PO ST", b"POST\x00", b"POST\t", b"PO\tST", b"\tPOST", b"P\xc3\x96ST", b"POST:",
        b"PO(ST", b"", b"X" * 300,
        b"M-SEARCH", b"\x16\x03\x01", b"GET\x0b", b"BREW", b"POST\r", b"POST\n", b"!#$%&'*+-.^_`|~",
    )  # fmt: skip
    for method in methods:
        yield f"method {printable(method[:24])}", request(LENGTH, body=BODY, method=method)
    targets = (
        CHAT + b"?x=y", CHAT + b"#x", CHAT + b"?", CHAT + b"/", b"/" + CHAT, CHAT + b" x", CHAT + b"\tx",
        CHAT + b"\x00",
        CHAT + b"\xff", CHAT + b"%00", CHAT + b"%0d%0aX:y", b"/v1/chat%2fcompletions", b"/v1/./chat/completions",
        b"/v1/../v1/chat/completions", b"\\v1\\chat\\completions", b"http://gateway" + CHAT,
        b"http://other" + CHAT,
        b"https://gateway" + CHAT, b"HTTP://GATEWAY" + CHAT, b"http://user@gateway" + CHAT,
        b"http:" + CHAT, b"http://" + CHAT,
        b"ftp://gateway" + CHAT, b"gateway:80", b"gateway", b"*", b"", b"?", b"#", b"//gateway" + CHAT,
        b"/", b"v1/chat/completions",
        CHAT + b"\x7f", CHAT + b"\x0b", CHAT + b"\r", CHAT + b"\n", CHAT + b" HTTP/1.1\r\nX: y", b"/" + b"x" * 20000,
        b"http://gateway:8000:9" + CHAT, b"http://[::1" + CHAT, b"/%", b"/%zz", CHAT + b"?" + b"x" * 9000,
        CHAT + b"|{}^`\"<>",
    )  # fmt: skip
    for target in targets:
        yield (
            f"target {printable(target[:40])} ({len(target)} bytes)",
            request(LENGTH, body=BODY, target=target),
        )
    for name, before in (
        ("an empty line", b"\r\n"), ("two empty lines", b"\r\n\r\n"), ("a line feed", b"\n"),
        ("a carriage return", b"\r"),
        ("a space", b" "), ("a byte order mark", b"\xef\xbb\xbf"), ("NUL", b"\x00"),
        ("a line feed and an empty line", b"\n\r\n"),
        ("a form feed", b"\x0c"),
    ):  # fmt: skip
        yield f"{name} before it", before + GOOD
        yield f"{name} before the second", GOOD + before + HIDDEN
    yield "two spaces", GOOD.replace(b" ", b"  ", 1)
    yield "two spaces before the version", GOOD.replace(b" HTTP", b"  HTTP", 1)
    yield "a tab", GOOD.replace(b" ", b"\t", 1)
    yield "a tab before the version", GOOD.replace(b" HTTP", b"\tHTTP", 1)
    yield "a vertical tab", GOOD.replace(b" ", b"\x0b", 1)
    yield "HTTP/0.9", b"GET " + CHAT + b"\r\n"
    yield "HTTP/0.9 and fields", b"GET " + CHAT + b"\r\nHost: gateway\r\n\r\n"
    yield "a target alone", CHAT + b"\r\n\r\n"
    yield "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)
    yield "PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GOOD
    yield "an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + HIDDEN


def hosts() -> Family:
    """Host: missing, doubled, no host."""
    values = (
        b"", b" ", b"gateway:80", b"gateway:", b"gateway:x", b"gateway:-1", b"gateway:99999",
        b"gateway:123456", b"gateway, other",
        b"gateway other", b"gateway\tother", b"user@gateway", b"gateway/path", b"gateway?x", b"gateway#x",
        b"http://gateway",
        b"[::1]", b"[::1]:80", b"[::1", b"::1", b"gateway.", b".", b"ga\x00teway", b"g\xc3\xa4teway",
        b"%67ateway", b"gateway\\x",
        b"\r\n gateway", b"gateway\r\n x", b"gateway ", b"\tgateway\t", b"ga\x7fteway", b"*", b"-",
        b"[v1.x]", b"x" * 300,
    )  # fmt: skip
    for value in values:
        yield printable(value[:24]) or "empty", request(LENGTH, body=BODY, host=b"Host: " + value)
    yield "none", request(LENGTH, body=BODY, host=None)
    yield "none, HTTP/1.0", request(LENGTH, body=BODY, host=None, version=b"HTTP/1.0")
    yield "none, absolute target", request(LENGTH, body=BODY, host=None, target=b"http://gateway" + CHAT)
    yield "two that are the same", request(HOST, LENGTH, body=BODY)
    yield "two", request(b"Host: other", LENGTH, body=BODY)
    yield "two, the second with a space", request(b"Host : other", LENGTH, body=BODY)
    yield "two, HTTP/1.0", request(b"Host: other", LENGTH, body=BODY, version=b"HTTP/1.0")


def expects() -> Family:
    """Expect: the body may come, or not, and then what follows is a request."""
    for value in (
        b"100-continue",
        b"100-Continue",
        b"200-ok",
        b"",
        b"100-continue, x",
        b"100-continue\r\n x",
    ):
        yield f"{printable(value)} and a body", request(b"Expect: " + value, LENGTH, body=BODY)
    go_on = b"Expect: 100-continue"
    yield "twice", request(go_on, go_on, LENGTH, body=BODY)
    yield "no body", request(go_on, b"Content-Length: 0")
    yield "chunks", request(go_on, CODING, body=CHUNKS)
    yield "HTTP/1.0", request(go_on, LENGTH, body=BODY, version=b"HTTP/1.0")
    yield "a request in the body's place", request(go_on, b"Content-Length: 5000", body=HIDDEN)
    yield "refused, a request behind the body", request(go_on, LENGTH, method=b"PUT", body=BODY + HIDDEN)
    yield "refused, a request in the body's place", request(go_on, LENGTH, method=b"PUT", body=HIDDEN)
    yield "too large, a request in its place", request(go_on, b"Content-Length: 99999999999", body=HIDDEN)
    yield (
        "an unknown path, a request in its place",
        request(go_on, b"Content-Length: 9999999", target=b"/x", body=HIDDEN),
    )


def upgrades() -> Family:
    """Wishes for another protocol: nothing changes, and nothing is read as that protocol."""
    wish, h2c = b"Connection: Upgrade", b"Upgrade: h2c"
    settings = b"HTTP2-Settings: AAEAAEAAAAIAAAAB"
    yield (
        "h2c",
        request(wish.replace(b"Upgrade", b"Upgrade, HTTP2-Settings"), h2c, settings, LENGTH, body=BODY),
    )
    yield (
        "h2c and its preface",
        request(wish, h2c, LENGTH, body=BODY + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN),
    )
    yield "h2c and a request", request(wish, h2c, LENGTH, body=BODY + HIDDEN)
    yield "h2c and chunks", request(wish, h2c, CODING, body=CHUNKS + HIDDEN)
    yield "h2c and close", request(b"Connection: Upgrade, close", h2c, LENGTH, body=BODY + HIDDEN)
    yield "disclosed", request(b"Connection: Upgrade, disclosed", b"Upgrade: x", LENGTH, body=BODY + HIDDEN)
    yield (
        "websocket",
        request(wish, b"Upgrade: websocket", b"Sec-WebSocket-Key: eA==", method=b"GET", body=HIDDEN),
    )
    yield "without Connection", request(h2c, LENGTH, body=BODY + HIDDEN)
    yield "Connection alone", request(wish, LENGTH, body=BODY + HIDDEN)
    yield "two", request(wish, h2c, b"Upgrade: websocket", LENGTH, body=BODY + HIDDEN)
    yield "empty", request(wish, b"Upgrade:", LENGTH, body=BODY + HIDDEN)
    for version in (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"", b"RTSP/1.0"):
        yield (
            f"version {printable(version)}",
            request(wish, b"Upgrade: x", LENGTH, version=version, body=BODY + HIDDEN),
        )
    yield (
        "HTTP/1.0 and chunks",
        request(wish, b"Upgrade: x", CODING, version=b"HTTP/1.0", body=CHUNKS + HIDDEN),
    )
    yield "a length and a coding", request(wish, h2c, LENGTH, CODING, body=CHUNKS + HIDDEN)
    yield "two lengths", request(wish, h2c, LENGTH, b"Content-Length: 0", body=BODY)
    yield "an obsolete fold", request(wish, b"Upgrade: x\r\n y", LENGTH, body=BODY + HIDDEN)
    for name, extra in (("", ()), (" and close", (b"Connection: close",)), (" and upgrade", (wish, h2c))):
        yield f"CONNECT{name}", request(*extra, method=b"CONNECT", target=b"gateway:80", body=HIDDEN)
        yield (
            f"CONNECT{name} with a body",
            request(*extra, LENGTH, method=b"CONNECT", target=b"gateway:80", body=BODY + HIDDEN),
        )
        yield f"CONNECT{name} of a path", request(*extra, method=b"CONNECT", body=HIDDEN)


def ends() -> Family:
    """What ends a connection, and bytes behind it; what does not."""
    for value in (
        b"close", b"Close", b"keep-alive", b"close, keep-alive", b"keep-alive, close", b"disclosed",
        b"close;x", b"x,close,y",
        b",close", b'"close"', b"closed", b"", b"close\r\nConnection: keep-alive",
        b"keep-alive\r\nConnection: close",
        b"Content-Length", b"Transfer-Encoding", b"Host", b"Content-Length, close", b"close\x00",
        b"clo\xc5\x9fe", b" close\t",
    ):  # fmt: skip
        for version in (b"HTTP/1.1", b"HTTP/1.0"):
            name = f"{version.decode()}, {printable(value)}"
            yield name, request(b"Connection: " + value, LENGTH, version=version, body=BODY + HIDDEN)
    old = request(LENGTH, b"Connection: keep-alive", version=b"HTTP/1.0", body=BODY)
    yield "HTTP/1.0 twice", old + old
    yield "HTTP/1.0 and 1.1", request(LENGTH, version=b"HTTP/1.0", body=BODY) + HIDDEN
    yield "Proxy-Connection", request(b"Proxy-Connection: close", LENGTH, body=BODY) + HIDDEN
    yield "Keep-Alive", request(b"Keep-Alive: timeout=1, max=1", LENGTH, body=BODY) + HIDDEN
    yield "close and one byte", request(b"Connection: close", LENGTH, body=BODY + b"x")
    yield "close and an empty line", request(b"Connection: close", LENGTH, body=BODY + b"\r\n")
    yield "close in chunks", request(b"Connection: close", CODING, body=CHUNKS) + HIDDEN
    yield "one byte behind", GOOD + b"x"
    yield "garbage behind", GOOD + b"garbage\r\n\r\n"
    yield "NUL behind", GOOD + b"\x00" * 10
    yield "an empty line behind", GOOD + b"\r\n"
    yield "many empty lines behind", GOOD + b"\r\n" * 50
    yield "half a request behind", GOOD + HIDDEN[:40]
    yield "half a body behind", GOOD + HIDDEN[:-5]
    yield "three", GOOD + HIDDEN + GOOD
    yield "ten", GOOD * 10
    yield "a bad one between", GOOD + GOOD.replace(b"HTTP/1.1", b"HTTP/3.1", 1) + HIDDEN
    yield "a bad body between", GOOD + request(CODING, body=b"zz\r\n") + HIDDEN


def bodies() -> Family:
    """Bodies where none is expected, and requests behind a refusal."""
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PUT", b"TRACE"):
        name = method.decode()
        hidden = b"Content-Length: %d" % len(HIDDEN)
        yield f"{name} with a length, a request inside", request(hidden, method=method, body=HIDDEN)
        yield f"{name} with chunks", request(CODING, method=method, body=CHUNKS + HIDDEN)
        yield f"{name} without a length", request(method=method, body=HIDDEN)
    for name, target in (("an unknown path", b"/nothing"), ("a page", b"/health")):
        yield f"{name} with a body", request(LENGTH, target=target, body=BODY + HIDDEN)
        yield f"{name} with chunks", request(CODING, target=target, body=CHUNKS + HIDDEN)
    yield "no JSON", request(b"Content-Length: 3", body=b"{x}" + HIDDEN)
    yield "no model", request(b"Content-Length: 2", body=b"{}" + HIDDEN)
    yield "an unknown model", request(b"Content-Length: 13", body=b'{"model":"x"}' + HIDDEN)
    yield "too large", request(b"Content-Length: 60000000", body=HIDDEN)
    yield "too large in chunks", request(CODING, body=b"3938700\r\n" + HIDDEN)
    yield "no body in chunks", request(CODING, body=LAST + HIDDEN)
    yield "a form", request(b"Content-Type: multipart/form-data; boundary=x", LENGTH, body=BODY + HIDDEN)
    yield "an encoding that is none", request(b"Content-Encoding: chunked", LENGTH, body=BODY + HIDDEN)


FAMILIES: tuple[Callable[[], Family], ...] = (
    lengths, both, codings, chunks, trailers, fields, lines, hosts, expects, upgrades, ends, bodies,
)  # fmt: skip


def corpus() -> dict[str, bytes]:
    """Every payload by its family and name."""
    found = {f"{family.__name__}: {name}": payload for family in FAMILIES for name, payload in family()}
    assert len(found) == sum(1 for family in FAMILIES for _ in family()), "two payloads have one name"
    return found
