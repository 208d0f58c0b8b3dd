"""A body read to its end, without a gateway around it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.api.routes import Route
from gateway.body.content_coding import Decoding
from gateway.body.reader import BodyReader, ParsedBody
from gateway.config.field_policy import FieldPolicy, Mode
from gateway.config.model_options import Alias
from gateway.config.request_fields import REFUSED, REFUSED_PARTS, RULES

ANY_FIELD = FieldPolicy(Mode.PERMISSIVE, [*REFUSED, *RULES, *(f"content.{name}" for name in REFUSED_PARTS)])


def read(
    body: bytes, content_type: bytes, route: Route, aliases: Mapping[str, Alias], most_text: int,
    policy: FieldPolicy = ANY_FIELD,
) -> ParsedBody:  # fmt: skip
    """What is asked. Raises as the reader does."""
    reading = BodyReader(aliases, most_text, policy).begin(body, content_type, route)
    while not reading.advance():
        pass
    return reading.parsed()


def decoded(coded: bytes, coding: str, most: int) -> bytes:
    """What is in a compressed body. Raises as its decoding does."""
    decoding = Decoding([coded], coding, most)
    while decoding.body is None:
        decoding.advance()
    return decoding.body
