"""What the audit log keeps of a request's body: its text as the client sent it, without media, cut off. Pure."""

import re
from typing import Final

MAX_BYTES: Final = 64 * 1024  # of text that are kept
# Behind it stand media until the next quotation mark, if there is no space before that: a `data:` URI, or a member
# `data`, with Base64 in it. What only begins like that is text, which nobody can hide so.
MEDIA: Final = re.compile(rb'(?:;base64,|"data"\s{0,8}:\s{0,8}")(?=[A-Za-z0-9+/_-]{64})')
QUOTE, SPACE = b'"', b" "
MEDIA_COST: Final = 128  # bytes of text for which each of the media counts, so that they are not too many
CUT: Final = " [cut]"


def excerpt_of(body: bytes) -> str:
    """Return the body's text, with each of its media replaced by its size, and at most MAX_BYTES of it. It costs less
    than a millisecond: only the text that is kept is searched, and media are skipped by looking for their end."""
    pieces: list[bytes] = []
    at, room = 0, MAX_BYTES
    quote = space = -1  # the next ones, or where the search for them has ended
    while at < len(body) and room > 0:
        found = MEDIA.search(body, at, at + room)
        end = min(at + room, len(body)) if found is None else found.end()
        pieces.append(body[at:end])
        room -= end - at
        at = end
        if found is None:
            continue
        if quote < end:
            quote = space = index_of(QUOTE, body, end, len(body))
        if space < end or space == quote:
            space = index_of(SPACE, body, end, quote)
        if space == quote:
            at = quote
            pieces.append(b"<%d bytes of media>" % ((at - end) * 3 // 4))
            room -= MEDIA_COST
    text = b"".join(pieces).decode(errors="replace")
    return text if at >= len(body) else text + CUT


def index_of(byte: bytes, body: bytes, begin: int, end: int) -> int:
    """Return where the next such byte stands in body[begin:end]; `end` if none does."""
    found = body.find(byte, begin, end)
    return end if found < 0 else found
