"""What a request's body says that the gateway must know: its model, whether it streams, what it wants told. Pure.

The body's bytes go to the worker as they are, but for one field: a stream whose client does not ask for its usage is
asked for it in the client's place.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from email.message import Message
from typing import Final
from urllib.parse import urlsplit

import orjson

from gateway.cards import Card
from gateway.errors import InvalidRequest
from gateway.models import Alias, rewrite
from gateway.request import too_large
from gateway.routes import Kind, Route

MOST_DEPTH: Final = 64
ASK_FOR_USAGE: Final = b'"stream_options":{"include_usage":true},'
MOST_PARTS: Final = 1_000_000  # objects and lists: far beyond what any context holds
MOST_VALUES: Final = 4_000_000
ESCAPE_MARK, MEDIA_MARKS = b"\\u00", (b'_url"', b'"source"')  # what the patterns below begin to look for
ESCAPE: Final = re.compile(
    rb"\\u00(?:4[1-9A-Fa-f]|5[0-9AFaf]|6[1-9A-Fa-f]|7[0-9Aa])"
)  # of a letter: it may hide a name
MEDIA: Final = re.compile(rb'"(?:image|video|audio|input_image|input_audio|file)_url"|"source"')
Fields = Mapping[str, object]


class Asked:
    """A request as it will be sent. hides_usage: the client has not asked for the usage that will be told.

    alias: what the client's name for the model stands for.
    """

    __slots__ = ("alias", "body", "fields", "hides_usage", "model", "stream")

    def __init__(
        self, model: str, body: bytes, fields: Fields, stream: bool = False, hides_usage: bool = False,
        alias: Alias | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.body = body
        self.fields = fields
        self.stream = stream
        self.hides_usage = hides_usage
        self.alias = alias


def read(
    body: bytes, content_type: bytes, route: Route, aliases: Mapping[str, Alias], most_text: int
) -> Asked:
    """Reads a body. Raises InvalidRequest saying what is wrong with it, or RequestTooLarge for one of more than
    `most_text` bytes with neither images nor sound in it."""
    if route.kind is Kind.STORED:
        return Asked("", body, {})
    if route.kind is Kind.FORM:
        return read_form(body, content_type, aliases)
    if len(body) > most_text and not has_media(body):
        raise too_large(most_text)
    fields = parse(body)
    model, stream = fields.get("model"), fields.get("stream") is True
    if not isinstance(model, str) or not model:
        raise InvalidRequest(
            "The request body must be a JSON object with the name of a model in `model`", "model"
        )
    alias = aliases.get(model)
    if alias is not None:
        fields = rewrite(fields, alias)
        model = alias.model
        body = orjson.dumps(fields)
    if stream and route.asks_usage and not wants_usage(fields):
        return Asked(model, asking_for_usage(body, fields), fields, stream, True, alias)
    return Asked(model, body, fields, stream, False, alias)


def read_form(body: bytes, content_type: bytes, aliases: Mapping[str, Alias]) -> Asked:
    """Reads a multipart body, which is never written anew. Raises InvalidRequest."""
    model = form_model(body, content_type)
    if model in aliases:
        raise InvalidRequest(f"{model!r} is an alias; here, name {aliases[model].model!r}", "model")
    return Asked(model, body, {})


def parse(body: bytes) -> Fields:
    """The object in a body. Raises InvalidRequest."""
    parts = body.count(b"{") + body.count(b"[")
    if parts > MOST_PARTS or (len(body) > MOST_VALUES and body.count(b",") > MOST_VALUES):
        raise InvalidRequest(f"The request body has more than {MOST_PARTS} objects or {MOST_VALUES} values")
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
    if parts > MOST_DEPTH and is_deeper(fields, MOST_DEPTH):
        raise InvalidRequest(f"The request body is nested deeper than {MOST_DEPTH} levels")
    if not isinstance(fields, dict):
        raise InvalidRequest(
            "The request body must be a JSON object with the name of a model in `model`", "model"
        )
    if body.count(b'"model"') > 1 or has_escapes(body):
        refuse_two_models(body)
    return fields


def has_escapes(body: bytes) -> bool:
    """Whether a letter is escaped, behind which a name may hide."""
    return ESCAPE_MARK in body and ESCAPE.search(body) is not None


def has_media(body: bytes) -> bool:
    """Whether there may be images, sound or files in it."""
    return any(mark in body for mark in MEDIA_MARKS) and MEDIA.search(body) is not None


def is_deeper(value: object, levels: int) -> bool:
    """Whether `value` has more than `levels` levels of objects and lists."""
    layer = [value]
    for _ in range(levels):
        layer = [inner for outer in layer for inner in inside(outer)]
        if not layer:
            return False
    return True


def inside(value: object) -> Iterable[object]:
    """The objects and lists in an object or list."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in held if isinstance(inner, dict | list)]


def refuse_two_models(body: bytes) -> None:
    """Two parsers may take two values for the model of one object with both: then neither is right."""
    pairs: list[tuple[str, object]] = json.loads(body, object_pairs_hook=list)  # with repetitions
    if [name for name, _ in pairs].count("model") > 1:
        raise InvalidRequest("The request body names `model` twice", "model")


def wants_usage(fields: Fields) -> bool:
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def asking_for_usage(body: bytes, fields: Fields) -> bytes:
    """The body with `stream_options.include_usage`; bytes stay as they are where they can."""
    options = fields.get("stream_options")
    if "stream_options" in fields:
        if options is not None and not isinstance(options, dict):
            return body  # the worker says what is wrong with it
        return orjson.dumps({**fields, "stream_options": {"include_usage": True}})
    start = body.index(b"{") + 1
    return body[:start] + ASK_FOR_USAGE + body[start:]


def form_model(body: bytes, content_type: bytes) -> str:
    """The field `model` of a multipart body. Raises InvalidRequest."""
    header = Message()
    header["content-type"] = content_type.decode("latin-1")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise InvalidRequest("The request body must be multipart/form-data with a boundary")
    found = [
        model for part in body.split(b"--" + boundary.encode("latin-1")) if (model := model_in_part(part))
    ]
    if len(found) != 1:
        raise InvalidRequest("The request body must have one field `model` with the name of a model", "model")
    return found[0]


def model_in_part(part: bytes) -> str | None:
    """The value of a part that is the field `model`."""
    head, _, value = part.partition(b"\r\n\r\n")
    if re.search(rb'(?i)content-disposition:[^\r\n]*;\s*name="?model"?(?:[;\r\n]|$)', head) is None:
        return None
    return value.removesuffix(b"\r\n").decode(errors="replace")


def remote_media(asked: Asked, allowed: Collection[str] = ()) -> str | None:
    """The first address of media in a request that is neither a data: URI nor of an allowed host, or None."""
    return next((url for url in urls_in(asked.fields) if not is_allowed(url, allowed)), None)


def is_allowed(url: str, allowed: Collection[str]) -> bool:
    """Whether a worker may take media from there."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "data" or (parts.scheme in ("http", "https") and parts.hostname in allowed)
    except ValueError:
        return False


def urls_in(value: object) -> Iterable[str]:
    """Every address under a key that ends in `_url`, or in a `source`, as Anthropic's clients say it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            url = inner.get("url") if isinstance(inner, dict) else inner
            if isinstance(url, str) and (name.endswith("_url") or (name == "source" and inner is not url)):
                yield url
            else:
                yield from urls_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from urls_in(inner)


def check_media(asked: Asked, cards: tuple[Card, ...]) -> None:
    """Raises InvalidRequest if a worker would have to fetch media from where no card allows it."""
    if not has_media(asked.body) and not has_escapes(asked.body):
        return
    url = remote_media(asked, frozenset.union(*(card.media_domains for card in cards)))
    if url is not None:
        raise InvalidRequest(
            f"No worker may fetch {url[:100]!r}: send media as data: URIs, such as data:image/png;base64,..."
        )


def check_size(asked: Asked, route: Route, cards: tuple[Card, ...], most: int) -> None:
    """Raises RequestTooLarge for a body that only images or sound could fill, of a model that takes neither."""
    if len(asked.body) > most and route.kind is Kind.JSON and not any(card.images for card in cards):
        raise too_large(most)
