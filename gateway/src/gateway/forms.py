"""The model that a multipart form names, read in short turns. Pure.

Whatever a worker could take for a field `model` is seen here: with two of them, or one that is spelt in a way of its
own, the form is refused.
"""

import re
from email.message import Message
from typing import Final

from gateway.errors import InvalidRequest

MOST_PARTS: Final = 1000
MOST_BOUNDARY_BYTES: Final = 70  # RFC 2046
MOST_HEAD_BYTES: Final = 8192  # of a part; and of the model's name
TURN_BYTES: Final = 256 * 1024
IS_MODEL: Final = re.compile(rb'(?i)content-disposition:.*;\s*name\s*=\s*(?:"model"|model\s*(?:;|$))')
IS_ODD: Final = re.compile(rb'(?i)content-disposition:.*;\s*name\s*(?:\*|=\s*"[^"]*\\)')


class Form:
    """One form."""

    def __init__(self, body: bytes, content_type: bytes) -> None:
        self._body = body
        self._mark = b"\r\n--" + boundary_of(content_type)
        self._part = self._at = 0  # where the part that is read begins, and how far it is read
        self._parts = 0
        self._models: list[str] = []

    def advance(self) -> bool:
        """Reads on for about a millisecond; returns whether that was all. Raises InvalidRequest."""
        stop = self._at + TURN_BYTES
        while self._at < stop and self._at < len(self._body):
            self._find_mark(stop)
        if self._at < len(self._body):
            return False
        self._end_part(len(self._body))
        return True

    def _find_mark(self, stop: int) -> None:
        if self._at == 0 and self._body.startswith(self._mark[2:]):
            self._part = self._at = len(self._mark) - 2
            return
        at = self._body.find(self._mark, self._at, stop + len(self._mark))
        if at < 0:
            self._at = min(stop + 1, len(self._body))
            return
        self._end_part(at)
        self._part = self._at = at + len(self._mark)

    def _end_part(self, end: int) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidRequest(f"The request body has more than {MOST_PARTS} parts")
        model = model_in_part(self._body, self._part, end)
        if model is not None:
            self._models.append(model)

    def model(self) -> str:
        """Raises InvalidRequest if there is none, or more than one."""
        if len(self._models) != 1 or not self._models[0]:
            raise InvalidRequest(
                "The request body must have one field `model` with the name of a model", "model"
            )
        return self._models[0]


def boundary_of(content_type: bytes) -> bytes:
    """The boundary that a form's head names. Raises InvalidRequest."""
    header = Message()
    header["content-type"] = content_type.decode("latin-1")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise InvalidRequest("The request body must be multipart/form-data with a boundary")
    if len(boundary) > MOST_BOUNDARY_BYTES:
        raise InvalidRequest(f"The form's boundary is longer than {MOST_BOUNDARY_BYTES} bytes")
    return boundary.encode("latin-1")


def model_in_part(body: bytes, start: int, end: int) -> str | None:
    """The value of a part that is the field `model`. Raises InvalidRequest."""
    behind = body.find(b"\r\n\r\n", start, min(end, start + MOST_HEAD_BYTES))
    head = body[start : behind if behind >= 0 else min(end, start + MOST_HEAD_BYTES)]
    if behind < 0 and end - start > MOST_HEAD_BYTES:
        raise InvalidRequest(f"The head of a part of the form is longer than {MOST_HEAD_BYTES} bytes")
    lines = head.split(b"\r\n")
    if any([IS_ODD.match(line) is not None for line in lines]):  # noqa: C419  # mypyc makes a list cheaper
        raise InvalidRequest('A part of the form must be named as in name="model", without * and backslash')
    if not any([IS_MODEL.match(line) is not None for line in lines]):  # noqa: C419
        return None
    if behind < 0 or end - behind > MOST_HEAD_BYTES:
        raise InvalidRequest("The form's field `model` is no name of a model", "model")
    return body[behind + 4 : end].decode(errors="replace")
