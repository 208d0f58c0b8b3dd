"""Any head that llhttp takes is passed or refused as the client's fault; one that is passed can be read in one way."""

import atheris
import httptools

with atheris.instrument_imports(include=["gateway"]):
    from gateway import guard

from tests.fuzz.harness import main, pieces

SEEDS = (
    b"\x00GET /v1/models HTTP/1.1\r\nhost: gateway:8000\r\n\r\n",
    b"\x02\x05\x20POST /v1/chat%2fcompletions?x HTTP/1.1\r\nHost: [::1]\r\ncontent-length: 3\r\n\r\nabc",
    b"\x00POST http://a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"\x00POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\nX: y\r\n z\r\n\r\n",
    b"\x00CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
)


class Head:
    """A request's head as the gateway collects it."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.fields: guard.Headers = []
        self.whole = False

    def on_message_begin(self) -> None:
        self.url, self.fields, self.whole = b"", [], False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.whole = True
        if not self.parser.should_upgrade():
            judge(self)


def judge(head: Head) -> None:
    """A refusal is the client's fault; what is passed has one host and one length."""
    found = guard.problem(head.url, head.parser.get_http_version(), head.fields)
    assert found is None or 400 <= found.status < 500
    names = [name for name, _ in head.fields]
    if found is None:
        assert names.count(b"host") <= 1
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert isinstance(guard.plain_path(head.url), bytes)


def target(data: bytes) -> None:
    guard.plain_path(data[:64])
    head = Head()
    try:
        for part in pieces(data):
            head.parser.feed_data(part)
    except httptools.HttpParserUpgrade:
        parse_again(head)
    except httptools.HttpParserError:
        return


def parse_again(head: Head) -> None:
    """Without the wish for another protocol it is the same head, and asks for none."""
    try:
        plain = guard.without_upgrade(head.parser.get_method(), head.url, head.fields)
    except httptools.HttpParserError:
        return
    again = Head()
    again.parser.feed_data(plain)
    assert again.whole
    assert again.url == head.url
    assert others(again) == others(head)


def others(head: Head) -> guard.Headers:
    return [field for field in head.fields if field[0] not in (b"upgrade", b"connection")]


if __name__ == "__main__":
    main(target, SEEDS)
