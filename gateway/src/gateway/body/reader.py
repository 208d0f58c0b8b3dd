"""Read what the gateway must know of a request's body: its model, whether it streams, whether it asks for usage. Pure.

The client's bytes go to the worker as they are. What the gateway adds (the wish for a stream's usage, an alias's
parameters) is put in between them, so that the client's numbers, names and order stay."""

import json
from collections.abc import Collection, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

import orjson

from gateway.api.errors import InvalidRequest
from gateway.api.routes import Kind, Route
from gateway.body.budget import too_large
from gateway.body.field_check import ESCAPE_MARK, JUDGED, NAMES, FieldCheck, is_fine
from gateway.body.form_fields import splices_of
from gateway.body.json_scan import MAX_DEPTH, JsonScan
from gateway.body.known_tools import KnownTools
from gateway.body.members import HINTS, NOTED, PART_KEYS, Member, members_of
from gateway.body.multipart import MultipartForm
from gateway.config.api_keys import ANYONE, ApiKey, salt_from
from gateway.config.catalog import Card
from gateway.config.field_policy import FieldPolicy, RoutePolicy
from gateway.config.model_options import Alias
from gateway.config.request_fields import REFUSED_PARTS
from gateway.http.write_coalescer import Parts

BOM, UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
PRESCAN_BYTES: Final = 256 * 1024  # per turn
MAX_VALUES: Final = 4_000_000  # of a body: its commas are counted
SMALL_BYTES: Final = 16 * 1024  # up to which a parser is faster than the scan
MEDIA_MARKS: Final = (b'_url"', b'"source"', b'"input_audio"')  # in names of members that hold media
PART_MARKS: Final = (b'_embeds"', b'"uuid"')  # of what a content part may not have
# Names for which a small body is scanned: one may hold an address of media, or be refused in a content part.
SCANNED: Final = frozenset([b"source", *[name.encode() for name in (*PART_KEYS, *REFUSED_PARTS)]])
BACKSLASH: Final = b"\\"
OVERLAP: Final = 16  # bytes of the piece before, more than a mark has
USED: Final = frozenset(name for name in NOTED if "." not in name)  # top-level members that are read
MAX_USED_BYTES: Final = 1 << 20  # of one such member
MAX_HINT_BYTES: Final = 64  # of a member of HINTS
MAX_OPTIONS_BYTES: Final = 4096  # of `stream_options`, which is parsed at once
# A small body with one of these is scanned too.
NEEDS_SCAN: Final = frozenset(["stream_options", "previous_response_id", "user"])
ASK_FOR_USAGE: Final = b'"stream_options":{"include_usage":true},'
ASK_IN_EACH_CHUNK: Final = b'"stream_options":{"include_usage":true,"continuous_usage_stats":true},'
USAGE, CONTINUOUS = "stream_options.include_usage", "stream_options.continuous_usage_stats"
CONTINUOUS_NAME: Final = "continuous_usage_stats"
MAX_COPIED_BYTES: Final = 1 << 20  # of a changed body that is joined; joining 50 MiB would take 60 ms
Fields = dict[str, object]


class ParsedBody:
    """A body that was read, as it will be sent. fields: the members that the gateway reads; hides_usage: remove the
    usage at a stream's end, since only the gateway asked for it; cuts_usage: likewise the usage in each chunk; alias:
    the one that the client named; addresses: of media for a worker to fetch; parts: the body as it is sent, `size`
    bytes; body: the same in one piece, but without the gateway's changes if it is large; named: what the client wrote
    as its model; media_bytes: of media within the body."""

    def __init__(
        self, model: str, body: bytes, fields: Fields, stream: bool = False, hides_usage: bool = False,
        alias: Alias | None = None, addresses: Collection[str] = (), parts: Parts | None = None,
        cuts_usage: bool = False, named: str = "", media_bytes: int = 0,
    ) -> None:  # fmt: skip
        self.model = model
        self.named = named or model
        self.body = body
        self.fields = fields
        self.stream = stream
        self.hides_usage = hides_usage
        self.cuts_usage = cuts_usage
        self.alias = alias
        self.addresses = addresses
        self.media_bytes = media_bytes
        self.parts: Parts = [body] if parts is None else parts
        self.size = len(body) if parts is None else sum([len(part) for part in parts])


class BodyReading(Protocol):
    """The reading of one body. The request's handler owns it."""

    def advance(self) -> bool:
        """Read on for about a millisecond. Return whether it is done. Raises InvalidRequest or RequestTooLarge."""

    def parsed(self) -> ParsedBody:
        """Return the result, once `advance` has returned True. Raises InvalidRequest."""


class BodyReader:
    """Makes the reading of each body; one per process. most_text: bytes of a body without images or sound; policy:
    which fields are taken; sparing: models whose workers are asked for usage at a stream's end only."""

    def __init__(
        self,
        aliases: Mapping[str, Alias],
        most_text: int,
        policy: FieldPolicy,
        sparing: Collection[str] = frozenset(),
    ) -> None:
        self.aliases = aliases
        self.most_text = most_text
        self.policy = policy
        self._sparing = sparing
        self._others = {name for alias in aliases.values() for name in (*alias.force, *alias.default)}
        self.form_fields = {"model", *self._others} if aliases else set()  # that an alias may set in a form
        self.tools = KnownTools(SCANNED | JUDGED, ESCAPE_MARK)
        self._members: dict[tuple[str, bool], Member] = {}  # by route and whether parts are looked into

    def begin(self, body: bytes, content_type: bytes, route: Route, key: ApiKey = ANYONE) -> BodyReading:
        """Return the reading of `body`, which depends on the route's kind. key: whose request it is; an alias that it
        may not use is read as any name that does not exist. Raises InvalidRequest for a bad boundary."""
        if route.kind is Kind.STORED:
            return NoBody(body)
        if route.kind is Kind.FORM:
            return FormReading(self, body, content_type, route, key)
        return JsonReading(self, body, route, key)

    def alias_of(self, model: str, key: ApiKey) -> Alias | None:
        """Return the alias of the name `model`; None if there is none that `key` may use."""
        alias = self.aliases.get(model)
        return alias if alias is not None and key.may_use(model) else None

    def meters(self, model: str, key: ApiKey) -> bool:
        """Return whether to ask for usage in each chunk: what a key used is counted, of an aborted stream too."""
        return key.name != "" and model not in self._sparing

    def members(self, route: str, parts: bool) -> Member:
        """Return the tree of members to scan for, which is made once per route. parts: look into content parts too."""
        found = self._members.get((route, parts))
        if found is None:
            found = members_of(route, self.policy.of(route), self._others, parts=parts)
            self._members[route, parts] = found
        return found


class NoBody:
    """The reading of a request for a stored response: its body, if any, is sent unread."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def advance(self) -> bool:
        return True  # nothing is read

    def parsed(self) -> ParsedBody:
        return ParsedBody("", self._body, {})  # no model: the handler takes one of the response's holder


class FormReading:
    """The reading of a multipart form. It is sent unchanged, but for the parts that an alias sets."""

    def __init__(
        self, reader: BodyReader, body: bytes, content_type: bytes, route: Route, key: ApiKey
    ) -> None:
        self._reader = reader
        self._body = body
        self._key = key
        self._policy = reader.policy.of(route.name)
        self._form = MultipartForm(body, content_type, self._policy, reader.form_fields)

    def advance(self) -> bool:
        return self._form.advance()

    def parsed(self) -> ParsedBody:
        """Return the form with the alias resolved. Raises InvalidRequest if it cannot be, or no model is named."""
        form, model = self._form, self._form.model()
        alias = self._reader.alias_of(model, self._key)
        if alias is None:
            return ParsedBody(model, self._body, {}, media_bytes=len(self._body))
        if form.is_odd:
            raise InvalidRequest(
                f"A part of the form has several names, with which {model!r} cannot be used", "model"
            )
        missing: Fields = {name: value for name, value in alias.default.items() if name not in form.spans}
        known = {
            name: value for name, value in (missing | dict(alias.force)).items() if self._policy.takes(name)
        }
        splices = splices_of({"model": alias.model} | known, form.spans, form.delimiter)
        body, parts = with_splices(self._body, splices)
        media = len(self._body)
        return ParsedBody(alias.model, body, {}, alias=alias, parts=parts, named=model, media_bytes=media)


class JsonReading:
    """The reading of a JSON body. A small one is parsed. Others are prescanned as bytes, then scanned for members, and
    what was found is compared with the route's policy."""

    def __init__(self, reader: BodyReader, body: bytes, route: Route, key: ApiKey) -> None:
        self._reader = reader
        self._key = key
        self._body = body if body.startswith(b'{"') else without_bom(body)  # as most do: no mark, no UTF-16
        self._route = route
        self._policy = reader.policy.of(route.name)
        self._prescanned = 0  # bytes
        self._values = 0  # commas so far
        self._has_media = self._has_parts = False  # perhaps; parts: what is looked for in content parts
        self._scan: JsonScan | None = None
        self._check: FieldCheck | None = None
        self._small: ParsedBody | None = None  # the result of a small body that is parsed

    def advance(self) -> bool:
        """Parse the body if it is small and plain; else take one turn of the prescan, the scan or the check."""
        if self._check is not None:
            return self._check.advance()
        if self._scan is None:
            if len(self._body) <= SMALL_BYTES:
                self._small = read_small(self._body, self._route, self._reader, self._key, self._policy)
                if self._small is not None:
                    return True
            self._prescan()
            if self._prescanned < len(self._body):
                return False
            if len(self._body) > self._reader.most_text and not self._has_media:
                raise too_large(self._reader.most_text)
            members = self._reader.members(self._route.name, self._has_media or self._has_parts)
            self._scan = JsonScan(self._body, members)
            if self._prescanned > PRESCAN_BYTES:
                return False  # the scan begins in the next turn
        if not self._scan.advance():
            return False
        self._check = FieldCheck(self._scan, self._policy)
        return self._check.advance()

    def _prescan(self) -> None:
        """Check that the next piece is UTF-8 and the values are not too many; note whether it may name media."""
        begin = self._prescanned
        piece = self._body[begin : begin + PRESCAN_BYTES]
        self._prescanned += len(piece)
        if not piece.isascii():
            self._prescanned -= cut_character(piece, begin, at_end=self._prescanned == len(self._body))
        self._values += piece.count(b",")
        if self._values > MAX_VALUES:
            raise InvalidRequest(f"The request body has more than {MAX_VALUES} values")
        if begin:
            piece = self._body[begin - OVERLAP : begin] + piece
        for mark in MEDIA_MARKS:
            self._has_media = self._has_media or mark in piece
        for mark in (*PART_MARKS, ESCAPE_MARK):
            self._has_parts = self._has_parts or mark in piece

    def parsed(self) -> ParsedBody:
        """Return the body with the alias resolved, and with a wish for usage added if a stream's client has none."""
        if self._small is not None:
            return self._small
        scan = self._scan
        assert scan is not None
        fields = fields_of(scan)
        model = fields.get("model")
        if not isinstance(model, str) or not model:
            raise InvalidRequest(
                "The request body must be a JSON object with the name of a model in `model`", "model"
            )
        changes: dict[str, bytes] = {}
        named, alias = model, self._reader.alias_of(model, self._key)
        if alias is not None:
            set_by_alias = alias_members(alias, scan)
            changes = {name: json_of(value) for name, value in set_by_alias.items()}
            fields.update(set_by_alias)
            model = alias.model
        changes |= key_changes(self._key, self._route, fields)
        splices = [splice_of(name, written, scan) for name, written in changes.items()]
        stream = fields.get("stream") is True
        asks = stream and self._route.asks_usage
        hides_usage = asks and not wants_usage(fields)
        in_each = asks and self._reader.meters(model, self._key)
        if hides_usage or in_each:
            splices += usage_splices(fields, scan, in_each=in_each)
        cuts_usage = in_each and (hides_usage or not wants_usage(fields, CONTINUOUS_NAME))
        body, parts = with_splices(self._body, splices)
        return ParsedBody(
            model,
            body,
            fields,
            stream,
            hides_usage,
            alias,
            scan.addresses,
            parts,
            cuts_usage,
            named,
            scan.media_bytes,
        )


def read_small(
    body: bytes, route: Route, reader: BodyReader, key: ApiKey, policy: RoutePolicy
) -> ParsedBody | None:
    """Parse a small body, asking for a stream's usage and adding what the key brings; None if it needs the scan: media,
    options, alias, faults, or a member of the client's in place of which the key's must stand."""
    if BACKSLASH in body and ESCAPE_MARK in body:
        return None
    rest = reader.tools.cut(body)
    names = NAMES.findall(rest)
    if not SCANNED.isdisjoint(names) or may_be_deep(rest):
        return None  # perhaps an address or a tensor, or nested too deep: the scan tells
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict) or not fields.keys().isdisjoint(NEEDS_SCAN):
        return None
    model = fields.get("model")
    if (
        not isinstance(model, str)
        or not model
        or model in reader.aliases
        or not is_fine(policy, fields, names, body)
    ):
        return None
    added = key_members(key, route)
    if added and ("cache_salt" in fields or (route.pools and "priority" in fields)):
        return None
    stream = fields.get("stream") is True
    asks = stream and route.asks_usage
    in_each = asks and reader.meters(model, key)
    if asks:
        added = (ASK_IN_EACH_CHUNK if in_each else ASK_FOR_USAGE) + added
    if not added:
        return ParsedBody(model, body, fields, stream)
    start = body.index(b"{") + 1
    return ParsedBody(model, body[:start] + added + body[start:], fields, stream, asks, cuts_usage=in_each)


def may_be_deep(body: bytes) -> bool:
    """Whether the body has more than MAX_DEPTH opening brackets, texts included. `find` is faster here than `count`."""
    left = MAX_DEPTH
    for bracket in (b"{", b"["):
        at = body.find(bracket)
        while at >= 0 and left >= 0:
            left -= 1
            at = body.find(bracket, at + 1)
    return left < 0


def without_bom(body: bytes) -> bytes:
    """Return the body without its byte order mark. Raises InvalidRequest if it is UTF-16 or UTF-32."""
    if body[:2] in UTF16_MARKS or b"\0" in body[:2]:
        raise InvalidRequest("The request body is not valid JSON: it is UTF-16 or UTF-32; send it as UTF-8")
    return body[len(BOM) :] if body.startswith(BOM) else body


def cut_character(piece: bytes, begin: int, *, at_end: bool) -> int:
    """Return how many bytes at the end of `piece` are the beginning of a character that goes on in the next piece.
    begin: the piece's index in the body. Raises InvalidRequest if the piece is not UTF-8."""
    try:
        piece.decode()
    except UnicodeDecodeError as error:
        rest = len(piece) - error.start
        if at_end or rest > 3 or error.end != len(piece):  # a character has at most 4 bytes
            raise InvalidRequest(
                f"The request body is not valid JSON: it is not UTF-8, at byte {begin + error.start}"
            ) from error
        return rest
    return 0


def fields_of(scan: JsonScan) -> Fields:
    """Return the values of the members in USED, and of those of HINTS that are plain. Raises InvalidRequest if one of
    USED is there twice, since gateway and worker might then take different values."""
    for name in scan.duplicates:
        if name.partition(".")[0] in USED:
            raise InvalidRequest(f"The request body names `{name}` twice", name)
    fields: Fields = {name: value_of(name, scan) for name in USED if name in scan.spans}
    for name in HINTS:
        if name in scan.spans:
            start, end = scan.spans[name]
            fields[name] = hint_in(scan.text[start : min(end, start + MAX_HINT_BYTES)])
    return fields


def hint_in(written: bytes) -> object:
    """Return a short value as it stands in the body; None if it is none that can be read."""
    try:
        return orjson.loads(written)
    except orjson.JSONDecodeError:
        return None


def value_of(name: str, scan: JsonScan) -> object:
    """Return a member's value. An object or list is None, unparsed since it may be long, except in `stream_options`."""
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


# changes to the client's bytes: (index of the first byte, index behind the last one, the bytes to put there)

Splice = tuple[int, int, bytes]


def alias_members(alias: Alias, scan: JsonScan) -> dict[str, object]:
    """Return the members that an alias sets: those it forces, and defaults that the client leaves out or sets to null.
    Objects are replaced, not merged. Raises InvalidRequest for one that is in the body twice."""
    changes: dict[str, object] = {"model": alias.model, **alias.force}
    for name, value in alias.default.items():
        span = scan.spans.get(name)
        if span is None or scan.text[span[0] : span[1]] == b"null":
            changes[name] = value
    for name in changes:
        if name in scan.duplicates:
            raise InvalidRequest(f"The request body names `{name}` twice", name)
    return changes


def json_of(value: object) -> bytes:
    """Return `value` as JSON. Unlike orjson, `json` takes integers of any length."""
    return json.dumps(value, separators=(",", ":")).encode()


def splice_of(name: str, value: bytes, scan: JsonScan) -> Splice:
    """Return the splice that replaces the value of member `name`, or adds the member before all others."""
    span = scan.spans.get(name)
    if span is not None:
        return span[0], span[1], value
    start = scan.text.index(b"{") + 1
    return start, start, b"%b:%b," % (json_of(name), value)


def key_members(key: ApiKey, route: Route) -> bytes:
    """Return the members that a worker gets because of the key, each with a comma behind it; none without a key."""
    members = b'"cache_salt":"%b",' % key.salt if key.salt and route.salts else b""
    if route.pools and key is not ANYONE:
        members += b'"priority":%d,' % key.priority.at_engine(0)
    return members


def key_changes(key: ApiKey, route: Route, fields: Fields) -> dict[str, bytes]:
    """Return the values of `key_members` by name, in place of the client's or the alias's own. Such a salt, where it is
    taken, still sets requests apart: the two make a third."""
    changes, salt = {}, key.salt
    if salt and route.salts:
        own = fields.get("cache_salt")
        if isinstance(own, str):
            salt = salt_from(salt, own.encode(errors="surrogatepass"))
        changes["cache_salt"] = b'"%b"' % salt
    if route.pools and key is not ANYONE:
        changes["priority"] = b"%d" % key.priority.at_engine(fields.get("priority"))
    return changes


def wants_usage(fields: Fields, name: str = "include_usage") -> bool:
    """Whether the client itself asks for a stream's usage; else the gateway does, and removes it from the answer."""
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get(name) is True


def usage_splices(fields: Fields, scan: JsonScan, *, in_each: bool) -> list[Splice]:
    """Return splices that ask for usage, at the stream's end only or in each chunk; none for options of a wrong type:
    vLLM refuses them. What the client asks for itself stays as it wrote it."""
    options = fields.get("stream_options")
    asking = ASK_IN_EACH_CHUNK if in_each else ASK_FOR_USAGE
    if "stream_options" not in fields:
        start = scan.text.index(b"{") + 1
        return [(start, start, asking)]
    if options is None:
        return [splice_of("stream_options", asking.removeprefix(b'"stream_options":')[:-1], scan)]
    if not isinstance(options, dict):
        return []
    splices, added = [], []
    if options.get("include_usage") is not True:
        if USAGE in scan.spans:
            splices.append(splice_of(USAGE, b"true", scan))
        else:
            added.append(b'"include_usage":true')
    if in_each and options.get(CONTINUOUS_NAME) is not True:
        if CONTINUOUS in scan.spans:
            splices.append(splice_of(CONTINUOUS, b"true", scan))
        else:
            added.append(b'"continuous_usage_stats":true')
    elif not in_each and options.get(CONTINUOUS_NAME):
        splices.append(splice_of(CONTINUOUS, b"false", scan))
    if added:
        start = scan.spans["stream_options"][0] + 1
        splices.append((start, start, b",".join(added) + (b"," if options else b"")))
    return splices


def with_splices(body: bytes, splices: list[Splice]) -> tuple[bytes, Parts | None]:
    """Return the body with the splices made, or as it is and what to send in parts if it is large."""
    if not splices:
        return body, None
    parts = spliced(body, splices)
    return (body, parts) if len(body) > MAX_COPIED_BYTES else (b"".join(parts), None)


def spliced(body: bytes, splices: list[Splice]) -> Parts:
    """Return the body with the splices made, in parts: views of the body and the bytes put in, without a copy."""
    parts: Parts = []
    at, view = 0, memoryview(body)
    for start, end, put in sorted(splices):
        parts += (view[at:start], put)
        at = end
    parts.append(view[at:])
    return parts


# media


def remote_media(parsed: ParsedBody, allowed: Collection[str] = ()) -> str | None:
    """Return the first address that is neither a data: URI nor of an allowed host, or None; for `check_media`."""
    return next((url for url in parsed.addresses if not is_allowed(url, allowed)), None)


def is_allowed(url: str, allowed: Collection[str]) -> bool:
    """Whether a worker may fetch media from `url`. allowed: host names."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "data" or (parts.scheme in ("http", "https") and parts.hostname in allowed)
    except ValueError:  # no valid URL
        return False


def check_media(parsed: ParsedBody, cards: tuple[Card, ...]) -> None:
    """Raise InvalidRequest if the request names media on a host that no card allows: workers fetch from no other."""
    if not parsed.addresses:
        return
    url = remote_media(parsed, frozenset.union(*(card.media_domains for card in cards)))
    if url is not None:
        raise InvalidRequest(
            f"No worker may fetch {url[:100]!r}: send media as data: URIs, such as data:image/png;base64,..."
        )


def check_size(parsed: ParsedBody, route: Route, cards: tuple[Card, ...], most: int) -> None:
    """Raise RequestTooLarge if a JSON body has more than `most` bytes and no card of the model takes images.
    `JsonReading` cannot know that: it lets each body that may name media pass."""
    if parsed.size > most and route.kind is Kind.JSON and not any(card.images for card in cards):
        raise too_large(most)
