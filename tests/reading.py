"""A body read to its end, without a gateway around it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.bodies import Asked, Reader
from gateway.models import Alias
from gateway.routes import Route


def read(
    body: bytes, content_type: bytes, route: Route, aliases: Mapping[str, Alias], most_text: int
) -> Asked:
    """What is asked. Raises as the reader does."""
    unread = Reader(aliases, most_text).begin(body, content_type, route)
    while not unread.advance():
        pass
    return unread.asked()
