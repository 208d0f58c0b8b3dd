"""Fields that are put into a multipart form in place of a client's, for an alias: whole parts, between which every
other byte stays as it came. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.api.errors import InvalidRequest

IS_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
Span = tuple[int, int]  # a part in the form, from its delimiter to the next one
Splice = tuple[int, int, bytes]  # as `reader.spliced` takes it


def splices_of(
    fields: Mapping[str, object], spans: Mapping[str, Sequence[Span]], delimiter: bytes
) -> list[Splice]:
    """Return the splices that give a form `fields`: `model`, which it has once, and others in place of the client's.
    spans: where the parts of these names are; delimiter: two hyphens and the boundary. Raises InvalidRequest."""
    put = b"".join([part for name, value in fields.items() for part in parts_of(name, value, delimiter)])
    gone = [(start, end, b"") for name in fields if name != "model" for start, end in spans.get(name, ())]
    (start, end), *_ = spans["model"]
    return [(start, end, put), *gone]


def parts_of(name: str, value: object, delimiter: bytes) -> list[bytes]:
    """Return the parts that say `value` in a form: none for null, one for each element of a list. Raises
    InvalidRequest for what no form can say."""
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    written = name + "[]" if isinstance(value, list) else name
    texts = [one if isinstance(one, str) else json.dumps(one) for one in values]
    contents = [text.encode(errors="replace") for text in texts]
    faults: list[object] = [one for one in values if isinstance(one, (dict, list))] or [
        one for one in contents if delimiter in one
    ]
    if faults or IS_NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"This alias sets `{name}` to what a form cannot say: use another route or model", "model"
        )
    head = b'%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n' % (delimiter, written.encode())
    return [b"%b%b\r\n" % (head, content) for content in contents]
