"""Find the model that a multipart form names, and compare its fields with the route's policy, in short turns. Pure.

It must see every part that a worker could take for a field. So a form is refused if a part's name is written in an
unusual way or in another charset, or if it has two parts for the model or for a field whose value has a rule."""

import re
from collections.abc import Collection
from typing import Final

from gateway.api.errors import InvalidRequest
from gateway.body.field_check import named_twice
from gateway.body.form_fields import Span
from gateway.config.field_policy import RoutePolicy

MAX_PARTS: Final = 1000  # of a form, far more than a transcription has
MAX_HEAD_BYTES: Final = 8192  # of the head of a part, of the model's name, and of a value with a rule
TURN_BYTES: Final = 256 * 1024  # per turn
MAX_TYPE_BYTES: Final = 256  # of Content-Type, which names the boundary
LINE_BREAK: Final = b"\r\n"
HEAD_END: Final = b"\r\n\r\n"
TOKEN: Final = rb"[!#$%&'+.^_`|~0-9A-Za-z-]++"  # no asterisk: it announces another encoding (RFC 2231)
PARAMETER: Final = (
    rb"[ \t]*+;[ \t]*+(?:(" + TOKEN + rb')=("[^"\\\x00-\x08\x0a-\x1f\x7f]*+"|[^\x00-\x20\x7f",;\\]++))?'
)
FORM_TYPE: Final = re.compile(rb"(?i:[ \t]*+multipart/form-data)((?:" + PARAMETER + rb")*)[ \t]*+")
PARAMETERS: Final = re.compile(PARAMETER)
BOUNDARY: Final = re.compile(rb"[!#$%&'()*+,./:=?^_`|~0-9A-Za-z -]{0,69}[!#$%&'()*+,./:=?^_`|~0-9A-Za-z-]")
IS_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# A head as programs write it: what is in quotes is no parameter. In any other, whatever looks like a name is one.
PLAIN_PARAMETER: Final = rb'[ \t]*+;[ \t]*+([A-Za-z-]++)=(?:"([^"\\]*+)"|([^\s";]++))'
PLAIN_HEAD: Final = re.compile(
    rb"(?i:content-disposition:[ \t]*+form-data)((?:" + PLAIN_PARAMETER + rb")*)[ \t]*+"
)
PLAIN_PARAMETERS: Final = re.compile(PLAIN_PARAMETER)
NAMED: Final = re.compile(rb';\s*name\s*=\s*(?:"([^"]*)"|([^;\s"]*))', re.IGNORECASE)
IS_DISPOSITION: Final = re.compile(rb"(?i)content-disposition:")
IS_ODD: Final = re.compile(rb'(?i)content-disposition:.*;\s*name\s*(?:\*|=\s*"[^"]*\\)')


class MultipartForm:
    """The reading of one form; `FormReading` owns it. noted: fields of which the parts' positions are kept in `spans`,
    for an alias to put others in their place; delimiter: what stands before each part."""

    def __init__(
        self, body: bytes, content_type: bytes, policy: RoutePolicy, noted: Collection[str] = ()
    ) -> None:
        self._body = body
        self._noted = noted
        self.spans: dict[str, list[Span]] = {}
        self.is_odd = False  # a part has several names, of which a worker might take any
        self._policy = policy
        self.delimiter = b"--" + boundary_of(content_type)
        self._mark = b"\r\n" + self.delimiter
        self._begin = 0  # index of the delimiter before the current part
        self._part = self._at = 0  # index where the current part begins, and how far it is read
        self._parts = 0
        self._models: list[str] = []
        self._ruled: set[str] = set()  # fields seen whose values have a rule

    def advance(self) -> bool:
        """Read on for about a millisecond. Return whether the form is done. Raises InvalidRequest."""
        stop = self._at + TURN_BYTES
        while self._at < stop and self._at < len(self._body):
            self._find_mark(stop)
        if self._at < len(self._body):
            return False
        self._end_part(len(self._body))
        return True

    def _find_mark(self, stop: int) -> None:
        """Look for the next boundary up to about `stop`, and end the part before it."""
        if self._at == 0 and self._body.startswith(self._mark[2:]):  # no line break before the first
            self._part = self._at = len(self._mark) - 2
            return
        at = self._body.find(self._mark, self._at, stop + len(self._mark))
        if at < 0:
            self._at = min(stop + 1, len(self._body))  # no boundary begins up to `stop`
            return
        self._end_part(at)
        self._begin = at + len(LINE_BREAK)
        self._part = self._at = at + len(self._mark)

    def _end_part(self, end: int) -> None:
        """Count the part that ends at `end`, or what is before the first boundary or behind the last; judge its field,
        and keep the value of the field `model`. Raises InvalidRequest."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The request body has more than {MAX_PARTS} parts")
        head_end, names = names_of_part(self._body, self._part, end)
        if "model" in names:
            self._models.append(model_in_part(self._body, head_end, end))
        self.is_odd = self.is_odd or len(names) > 1
        for name in names:
            self._judge(name, head_end, end)
            self._note(name, min(end + len(LINE_BREAK), len(self._body)))

    def _note(self, written: str, end: int) -> None:
        """Keep where the current part is, if an alias may set its field. end: where the next delimiter is."""
        name = written.partition("[")[0]
        if name in self._noted and (name != "model" or written == name):
            self.spans.setdefault(name, []).append((self._begin, end))

    def _judge(self, written: str, head_end: int, end: int) -> None:
        """Compare one field with the policy. written: its name, such as `include[]`. Raises InvalidRequest."""
        name = written.partition("[")[0]
        if not self._policy.takes(name):
            raise self._policy.not_taken(name)
        if name not in self._policy.rules:
            return
        if name in self._ruled:
            raise named_twice(name)
        self._ruled.add(name)
        if end - head_end > MAX_HEAD_BYTES:
            raise InvalidRequest(f"`{name}` is longer than {MAX_HEAD_BYTES} bytes", name)
        value = self._body[head_end + len(HEAD_END) : end]
        found = self._policy.fault(name, value.decode(errors="replace"))
        if found is not None:
            raise self._policy.wrong_value(name, found)

    def model(self) -> str:
        """Return the model's name, once the form is read. Raises InvalidRequest if there is none, or more than one."""
        if len(self._models) != 1 or not self._models[0]:
            raise InvalidRequest(
                "The request body must have one field `model` with the name of a model", "model"
            )
        return self._models[0]


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary in a Content-Type. Raises InvalidRequest if there is not exactly one valid boundary, or if
    there is more than it and UTF-8: a worker decodes names and values with the charset that stands here."""
    found = FORM_TYPE.fullmatch(content_type) if len(content_type) <= MAX_TYPE_BYTES else None
    named = (
        [(name.lower(), value.strip(b'"')) for name, value in PARAMETERS.findall(found[1]) if name]
        if found
        else []
    )
    parameters: dict[bytes, bytes] = dict(named)
    is_plain = len(named) == len(parameters) and parameters.keys() <= {b"boundary", b"charset"}
    is_utf8 = parameters.get(b"charset", b"utf-8").lower() in (b"utf-8", b"utf8")
    boundary = parameters.get(b"boundary", b"")
    if not is_plain or not is_utf8 or BOUNDARY.fullmatch(boundary) is None:
        raise InvalidRequest(
            "The request body must be multipart/form-data, with one boundary of 1 to 70 letters, digits or marks "
            f"and no charset but UTF-8, in a Content-Type of at most {MAX_TYPE_BYTES} bytes"
        )
    return boundary


def names_of_part(body: bytes, start: int, end: int) -> tuple[int, list[str]]:
    """Return where the head of the part body[start:end] ends, and all names that a worker might read in it.
    Raises InvalidRequest."""
    behind = body.find(HEAD_END, start, min(end, start + MAX_HEAD_BYTES))  # where its head ends
    head = body[start : behind if behind >= 0 else min(end, start + MAX_HEAD_BYTES)]
    if behind < 0 and end - start > MAX_HEAD_BYTES:
        raise InvalidRequest(f"The head of a part of the form is longer than {MAX_HEAD_BYTES} bytes")
    lines = head.split(b"\r\n")
    if any([IS_CONTROL.search(line) is not None for line in lines]):  # noqa: C419
        raise InvalidRequest("The head of a part of the form has a control character in it")
    if any([IS_ODD.match(line) is not None for line in lines]):  # noqa: C419  # mypyc makes a list cheaper
        raise InvalidRequest('A part of the form must be named as in name="model", without * and backslash')
    names = [name for line in lines if IS_DISPOSITION.match(line) is not None for name in names_in_line(line)]
    return (behind if behind >= 0 else end), [name.decode(errors="replace") for name in names]


def names_in_line(line: bytes) -> list[bytes]:
    """Return all names that a worker might read in a Content-Disposition."""
    plain = PLAIN_HEAD.fullmatch(line)
    if plain is None:
        return [quoted or bare for quoted, bare in NAMED.findall(line)]
    parameters = PLAIN_PARAMETERS.findall(plain[1])
    return [quoted or bare for key, quoted, bare in parameters if key.lower() == b"name"]


def model_in_part(body: bytes, head_end: int, end: int) -> str:
    """Return the value of the part that ends at index `end`: a model's name. Raises InvalidRequest."""
    if head_end == end or end - head_end > MAX_HEAD_BYTES:
        raise InvalidRequest("The form's field `model` is no name of a model", "model")
    return body[head_end + len(HEAD_END) : end].decode(errors="replace")
