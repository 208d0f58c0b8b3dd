"""Compare a request's fields with its route's policy. Pure.

A small body that is certainly fine is passed by `is_fine`. Any other is judged behind its scan by `FieldCheck`, which
alone refuses: so a small body and a large one get the same answer. A name that stands twice in a field with a rule is
refused: a worker might take the value that was not judged."""

import json
import re
from typing import Final

import orjson

from gateway.api.errors import InvalidRequest
from gateway.body.json_scan import JsonScan
from gateway.config import field_rules
from gateway.config.field_policy import MAX_SHOWN, RoutePolicy

MAX_VALUE_BYTES: Final = 128 * 1024  # of a field that has a rule, or of one tool: far more than a schema has
MAX_JUDGED_BYTES: Final = 64 * 1024  # of one that must be parsed
TURN_BYTES: Final = 32 * 1024  # of values that are parsed in one turn
# All names and short texts of letters and underscores in a JSON text, if it has no escaped letters.
NAMES: Final = re.compile(rb'"([A-Za-z_]++)"')
JUDGED: Final = frozenset(
    [name.encode() for name in (*field_rules.EXPRESSIONS, *field_rules.SIZES, field_rules.REPEATED)]
)
ESCAPE_MARK: Final = b"\\u00"  # begins an escaped letter, which may hide a name
BLANKS: Final = (b'" ', b'"\n', b'"\t', b'"\r')  # what may stand between a name and its colon


def is_fine(policy: RoutePolicy, fields: dict[str, object], names: list[bytes], body: bytes) -> bool:
    """Whether a small body's fields are certainly allowed, and each that is read stands once. fields: the body, parsed;
    names: those in it that NAMES finds."""
    known = policy.known
    if known is None:
        if not policy.refused.keys().isdisjoint(fields):
            return False
    elif not fields.keys() <= known:
        return False
    watched = [name for name in names if name in policy.watched]
    if len(set(watched)) != len(watched):
        return False
    is_nested = False
    for name, value in fields.items():
        rule = policy.rules.get(name)
        if rule is None or value is None or (rule.is_schema and JUDGED.isdisjoint(names)):
            continue
        if rule.fault(value) is not None:
            return False
        is_nested = is_nested or rule.is_nested
    return not is_nested or has_names_once(body, fields)


def has_names_once(text: bytes, value: object) -> bool:
    """Whether certainly no object in a JSON text has a name twice. value: the text, parsed, without duplicates.
    The names in the text are counted by their colons; what looks like one inside a string only makes them more."""
    if b'\\\\"' in text or any([mark in text for mark in BLANKS]):  # noqa: C419  # mypyc makes a list cheaper
        return False
    return text.count(b'":') - text.count(b'\\":') == names_in(value)


def names_in(value: object) -> int:
    """Return how many names all objects in `value` have."""
    if isinstance(value, dict):
        return len(value) + sum(
            [names_in(inner) for inner in value.values() if isinstance(inner, (dict, list))]
        )
    if isinstance(value, list):
        return sum([names_in(inner) for inner in value if isinstance(inner, (dict, list))])
    return 0


class FieldCheck:
    """The check of one scanned body, in turns; `JsonReading` owns it. Raises InvalidRequest for the first fault."""

    def __init__(self, scan: JsonScan, policy: RoutePolicy) -> None:
        if scan.refused is not None:
            raise policy.not_taken(scan.refused)
        self._text = scan.text
        self._policy = policy
        self._values = scan.elements  # name of the field, and where a value of it stands
        self._judged = 0
        for name, (start, end) in scan.spans.items():
            rule = policy.rules.get(name)
            if rule is not None and name in scan.duplicates:
                raise named_twice(name)
            if rule is not None and not rule.by_element:
                self._values.append((name, start, end))

    def advance(self) -> bool:
        """Judge values for about a millisecond. Return whether all are judged."""
        spent = 0
        while self._judged < len(self._values) and spent < TURN_BYTES:
            name, start, end = self._values[self._judged]
            self._judged += 1
            spent += end - start
            if end - start > MAX_VALUE_BYTES:
                raise InvalidRequest(f"`{name}` is longer than {MAX_VALUE_BYTES} bytes", name)
            self._judge(name, self._text[start:end])
        return self._judged == len(self._values)

    def _judge(self, name: str, written: bytes) -> None:
        """Judge one value, as it stands in the body. Of schemas, only expressions, grammars and sizes matter."""
        if self._policy.rules[name].is_schema and not has_expressions(written):
            return
        if len(written) > MAX_JUDGED_BYTES:
            raise InvalidRequest(
                f"`{name}` is longer than {MAX_JUDGED_BYTES} bytes, with expressions in it", name
            )
        if field_rules.containers_in(written) > field_rules.MAX_CONTAINERS:
            raise InvalidRequest(
                f"`{name}` has more than {field_rules.MAX_CONTAINERS} objects and lists", name
            )
        try:
            value: object = orjson.loads(written)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"The request body is not valid JSON: {error}, in `{name}`", name) from error
        if isinstance(value, (dict, list)) and not has_names_once(written, value):
            refuse_duplicates(name, written)
        found = self._policy.fault(name, value)
        if found is not None:
            raise self._policy.wrong_value(name, found)


def has_expressions(written: bytes) -> bool:
    """Whether a schema may have a regular expression, a grammar or a bound of a size in it."""
    return ESCAPE_MARK in written or not JUDGED.isdisjoint(NAMES.findall(written))


def refuse_duplicates(field: str, written: bytes) -> None:
    """Raise InvalidRequest if an object in a value of `field` has a name twice."""

    def once(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise named_twice(f"{field}.{name[:MAX_SHOWN]}")
            seen.add(name)

    json.loads(written, object_pairs_hook=once, parse_int=len, parse_float=len)


def named_twice(path: str) -> InvalidRequest:
    """Return the error for a field that stands twice: the gateway and a worker might take different values."""
    return InvalidRequest(f"The request body names `{path}` twice", path)
