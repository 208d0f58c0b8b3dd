"""What a request's body says that the gateway must know: its model, whether it streams, what it wants told. Pure.

The body's bytes go to the worker as they are. What the gateway has to say (a stream's usage, what an alias stands for)
is put in between them, so that no number, name or order of the client's changes.
"""

import json
from collections.abc import Collection, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

import orjson

from gateway.api.errors import InvalidRequest
from gateway.api.routes import Kind, Route
from gateway.body.budget import too_large
from gateway.body.json_scan import MAX_DEPTH, JsonScan
from gateway.body.members import NOTED, Member, members_of
from gateway.body.multipart import MultipartForm
from gateway.config.catalog import Card
from gateway.config.model_options import Alias
from gateway.http.write_coalescer import Parts

BOM, UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
SIFTED_BYTES: Final = 256 * 1024  # at a time
MAX_VALUES: Final = 4_000_000
SMALL_BYTES: Final = 16 * 1024  # of a body that a parser reads in less time than the scan
MEDIA_MARKS: Final = (b'_url"', b'"source"', b'"input_audio"')
ADDRESS_MARKS: Final = (b'_url"', b'"source"')  # without these, no address of media is in a body
BACKSLASH: Final = b"\\"
ESCAPE_MARK: Final = b"\\u00"  # of a letter: it may hide a name
OVERLAP: Final = 16  # bytes: longer than a mark
USED: Final = frozenset(name for name in NOTED if "." not in name)
MAX_USED_BYTES: Final = 1 << 20  # of such a field
MAX_OPTIONS_BYTES: Final = 4096  # of the one that is an object: a parser reads it in one go
TOLD_APART: Final = USED - {"model", "stream"}  # which are changed, or stand in messages too
ASK_FOR_USAGE: Final = b'"stream_options":{"include_usage":true},'
USAGE, CONTINUOUS = "stream_options.include_usage", "stream_options.continuous_usage_stats"
COPIED_BYTES: Final = 1 << 20  # of a body that is put together anew: a copy of 50 MiB takes 60 ms
Fields = dict[str, object]


class ParsedBody:
    """A request as it will be sent. hides_usage: the client has not asked for the usage that will be told.

    alias: what the client's name for the model stands for; addresses: of media, which a worker would fetch.
    parts: the body as it is sent; body: in one piece, of a large one as the client sent it; size: bytes that are sent.
    """

    def __init__(
        self, model: str, body: bytes, fields: Fields, stream: bool = False, hides_usage: bool = False,
        alias: Alias | None = None, addresses: Collection[str] = (), parts: Parts | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.body = body
        self.fields = fields
        self.stream = stream
        self.hides_usage = hides_usage
        self.alias = alias
        self.addresses = addresses
        self.parts: Parts = [body] if parts is None else parts
        self.size = len(body) if parts is None else sum([len(part) for part in parts])


class BodyReading(Protocol):
    """A body that is being read."""

    def advance(self) -> bool:
        """Reads on for about a millisecond; returns whether that was all. Raises InvalidRequest, or RequestTooLarge."""
        ...

    def parsed(self) -> ParsedBody:
        """What was read, once that is all. Raises InvalidRequest."""
        ...


class BodyReader:
    """Begins to read bodies. most_text: bytes of a body with neither images nor sound in it."""

    def __init__(self, aliases: Mapping[str, Alias], most_text: int) -> None:
        self.aliases = aliases
        self.most_text = most_text
        self._others = {name for alias in aliases.values() for name in (*alias.force, *alias.default)}
        self._members: dict[tuple[str, bool], Member] = {}

    def begin(self, body: bytes, content_type: bytes, route: Route) -> BodyReading:
        if route.kind is Kind.STORED:
            return NoBody(body)
        if route.kind is Kind.FORM:
            return FormReading(self, body, content_type)
        return JsonReading(self, body, route)

    def members(self, route: str, media: bool) -> Member:
        found = self._members.get((route, media))
        if found is None:
            found = self._members[route, media] = members_of(route, self._others, media=media)
        return found


class NoBody:
    """A request that names a stored response."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def advance(self) -> bool:
        return True

    def parsed(self) -> ParsedBody:
        return ParsedBody("", self._body, {})


class FormReading:
    """A form, of which nothing is changed."""

    def __init__(self, reader: BodyReader, body: bytes, content_type: bytes) -> None:
        self._reader = reader
        self._body = body
        self._form = MultipartForm(body, content_type)

    def advance(self) -> bool:
        return self._form.advance()

    def parsed(self) -> ParsedBody:
        model = self._form.model()
        alias = self._reader.aliases.get(model)
        if alias is not None:
            raise InvalidRequest(f"{model!r} is an alias; here, name {alias.model!r}", "model")
        return ParsedBody(model, self._body, {})


class JsonReading:
    """A JSON body: first it is sifted for what its bytes alone tell, then its members are looked for."""

    def __init__(self, reader: BodyReader, body: bytes, route: Route) -> None:
        self._reader = reader
        self._body = body if body.startswith(b'{"') else without_mark(body)
        self._route = route
        self._sifted = 0
        self._values = 0
        self._has_media = self._has_escapes = False
        self._scan: JsonScan | None = None
        self._plain: ParsedBody | None = None

    def advance(self) -> bool:
        if self._scan is None:
            if len(self._body) <= SMALL_BYTES:
                self._plain = plain(self._body, self._route, self._reader.aliases)
                if self._plain is not None:
                    return True
            self._sift()
            if self._sifted < len(self._body):
                return False
            if len(self._body) > self._reader.most_text and not self._has_media:
                raise too_large(self._reader.most_text)
            members = self._reader.members(self._route.name, self._has_media or self._has_escapes)
            self._scan = JsonScan(self._body, members)
            if self._sifted > SIFTED_BYTES:
                return False
        return self._scan.advance()

    def _sift(self) -> None:
        """Whether it is text, how many values it may have, and whether there may be media in it."""
        begin = self._sifted
        piece = self._body[begin : begin + SIFTED_BYTES]
        self._sifted += len(piece)
        if not piece.isascii():
            self._sifted -= cut_off(piece, begin, at_end=self._sifted == len(self._body))
        self._values += piece.count(b",")
        if self._values > MAX_VALUES:
            raise InvalidRequest(f"The request body has more than {MAX_VALUES} values")
        if begin:
            piece = self._body[begin - OVERLAP : begin] + piece
        for mark in MEDIA_MARKS:
            self._has_media = self._has_media or mark in piece
        self._has_escapes = self._has_escapes or ESCAPE_MARK in piece

    def parsed(self) -> ParsedBody:
        if self._plain is not None:
            return self._plain
        scan = self._scan
        assert scan is not None
        fields = fields_of(scan)
        model = fields.get("model")
        if not isinstance(model, str) or not model:
            raise InvalidRequest(
                "The request body must be a JSON object with the name of a model in `model`", "model"
            )
        splices: list[Splice] = []
        alias = self._reader.aliases.get(model)
        if alias is not None:
            changes = changes_of(alias, scan)
            splices = [splice_of(name, written(value), scan) for name, value in changes.items()]
            fields.update(changes)
            model = alias.model
        stream = fields.get("stream") is True
        hides_usage = stream and self._route.asks_usage and not wants_usage(fields)
        if hides_usage:
            splices += usage_splices(fields, scan)
        body, parts = self._body, None
        if splices and len(body) > COPIED_BYTES:
            parts = spliced(body, splices)
        elif splices:
            body = b"".join(spliced(body, splices))
        return ParsedBody(model, body, fields, stream, hides_usage, alias, scan.addresses, parts)


def plain(body: bytes, route: Route, aliases: Mapping[str, Alias]) -> ParsedBody | None:
    """What a small body asks, where no more than that is to be known of it; None leaves it to the scan, errors too."""
    if BACKSLASH in body and ESCAPE_MARK in body:
        return None
    for mark in ADDRESS_MARKS:
        if mark in body:
            return None
    if body.count(b'"model"') != 1 or body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        return None
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict) or not fields.keys().isdisjoint(TOLD_APART):
        return None
    model = fields.get("model")
    if not isinstance(model, str) or not model or model in aliases:
        return None
    if "stream" not in fields:
        return ParsedBody(model, body, fields)
    if body.count(b'"stream"') > 1:
        return None
    stream = fields["stream"] is True
    if not stream or not route.asks_usage:
        return ParsedBody(model, body, fields, stream)
    start = body.index(b"{") + 1
    return ParsedBody(model, body[:start] + ASK_FOR_USAGE + body[start:], fields, True, True)


def without_mark(body: bytes) -> bytes:
    """The body without a byte order mark. Raises InvalidRequest for one in another encoding than UTF-8."""
    if body[:2] in UTF16_MARKS or b"\0" in body[:2]:
        raise InvalidRequest("The request body is not valid JSON: it is UTF-16 or UTF-32; send it as UTF-8")
    return body[len(BOM) :] if body.startswith(BOM) else body


def cut_off(piece: bytes, begin: int, *, at_end: bool) -> int:
    """How many bytes at the end of a piece are the beginning of a character. Raises InvalidRequest for what is no
    UTF-8."""
    try:
        piece.decode()
    except UnicodeDecodeError as error:
        rest = len(piece) - error.start
        if at_end or rest > 3 or error.end != len(piece):
            raise InvalidRequest(
                f"The request body is not valid JSON: it is not UTF-8, at byte {begin + error.start}"
            ) from error
        return rest
    return 0


def fields_of(scan: JsonScan) -> Fields:
    """The values of the members that the gateway itself uses. Raises InvalidRequest if one stands there twice: two
    readers may take two values, and then neither is right."""
    for name in scan.twice:
        if name.partition(".")[0] in USED:
            raise InvalidRequest(f"The request body names `{name}` twice", name)
    return {name: value_of(name, scan) for name in USED if name in scan.spans}


def value_of(name: str, scan: JsonScan) -> object:
    """An object or a list counts as null where neither has a meaning: it may be long, and nothing is built of it."""
    start, end = scan.spans[name]
    is_options = name == "stream_options"
    is_container = scan.text[start] in b"{["
    if is_container and not is_options:
        return None
    most = MAX_OPTIONS_BYTES if is_container else MAX_USED_BYTES
    if end - start > most:
        raise InvalidRequest(f"`{name}` is longer than {most} bytes", name)
    try:
        return orjson.loads(scan.text[start:end])
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}, in `{name}`", name) from error


# what is put in between the client's bytes: (first byte, byte behind the last one, what stands there instead)

Splice = tuple[int, int, bytes]


def changes_of(alias: Alias, scan: JsonScan) -> dict[str, object]:
    """The members that an alias sets: what it forces, and a default where the client says nothing, or null. A member
    counts as a whole: objects are not merged. Raises InvalidRequest for one that stands there twice."""
    changes: dict[str, object] = {"model": alias.model, **alias.force}
    for name, value in alias.default.items():
        span = scan.spans.get(name)
        if span is None or scan.text[span[0] : span[1]] == b"null":
            changes[name] = value
    for name in changes:
        if name in scan.twice:
            raise InvalidRequest(f"The request body names `{name}` twice", name)
    return changes


def written(value: object) -> bytes:
    """As JSON; numbers may be of any length."""
    return json.dumps(value, separators=(",", ":")).encode()


def splice_of(name: str, value: bytes, scan: JsonScan) -> Splice:
    """A member's value in place of the client's, or a member before all others."""
    span = scan.spans.get(name)
    if span is not None:
        return span[0], span[1], value
    start = scan.text.index(b"{") + 1
    return start, start, b"%b:%b," % (written(name), value)


def wants_usage(fields: Fields) -> bool:
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def usage_splices(fields: Fields, scan: JsonScan) -> list[Splice]:
    """`stream_options.include_usage`, and no usage but at the end; what is no object is left to the worker's words."""
    options = fields.get("stream_options")
    if "stream_options" not in fields:
        start = scan.text.index(b"{") + 1
        return [(start, start, ASK_FOR_USAGE)]
    if options is None:
        return [splice_of("stream_options", b'{"include_usage":true}', scan)]
    if not isinstance(options, dict):
        return []
    splices = []
    if USAGE in scan.spans:
        splices.append(splice_of(USAGE, b"true", scan))
    else:
        start = scan.spans["stream_options"][0] + 1
        splices.append((start, start, b'"include_usage":true' + (b"," if options else b"")))
    if options.get("continuous_usage_stats"):
        splices.append(splice_of(CONTINUOUS, b"false", scan))
    return splices


def spliced(body: bytes, splices: list[Splice]) -> Parts:
    """The body with something else in some places. In parts, of which none is a copy."""
    parts: Parts = []
    at, view = 0, memoryview(body)
    for start, end, put in sorted(splices):
        parts += (view[at:start], put)
        at = end
    parts.append(view[at:])
    return parts


# media


def remote_media(parsed: ParsedBody, allowed: Collection[str] = ()) -> str | None:
    """The first address of media in a request that is neither a data: URI nor of an allowed host, or None."""
    return next((url for url in parsed.addresses if not is_allowed(url, allowed)), None)


def is_allowed(url: str, allowed: Collection[str]) -> bool:
    """Whether a worker may take media from there."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "data" or (parts.scheme in ("http", "https") and parts.hostname in allowed)
    except ValueError:
        return False


def check_media(parsed: ParsedBody, cards: tuple[Card, ...]) -> None:
    """Raises InvalidRequest if a worker would have to fetch media from where no card allows it."""
    if not parsed.addresses:
        return
    url = remote_media(parsed, frozenset.union(*(card.media_domains for card in cards)))
    if url is not None:
        raise InvalidRequest(
            f"No worker may fetch {url[:100]!r}: send media as data: URIs, such as data:image/png;base64,..."
        )


def check_size(parsed: ParsedBody, route: Route, cards: tuple[Card, ...], most: int) -> None:
    """Raises RequestTooLarge for a body that only images or sound could fill, of a model that takes neither."""
    if parsed.size > most and route.kind is Kind.JSON and not any(card.images for card in cards):
        raise too_large(most)
