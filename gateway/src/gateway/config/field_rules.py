"""What values a field of a request may have: one class per kind of rule. Pure. `request_fields` has a rule per field.

A rule refuses only what it knows to be harmful. A value of a wrong type is left to the worker, which says what it
wants. A number is also read from text, as a worker's reader does: `"n": "5"` is 5 to both."""

import re
from collections.abc import Mapping
from math import nan
from typing import Final

import orjson

from gateway.config.grammar_size import parts_of

# A repetition of an expression, such as {3} or {1,3}, with its bounds; or an escape, which is none: \{ or \u{41}.
REPEAT: Final = re.compile(
    r"\\[ux]\{[0-9A-Fa-f]*+\}|\\.|\{\s*+([0-9]*+)\s*+(?:,\s*+([0-9]*+)\s*+)?\}", re.DOTALL
)
MAX_REPEATS: Final = 10_000  # of all parts of an expression together
EXPRESSIONS: Final = ("pattern", "patternProperties", "regex", "grammar")  # members of schemas
SIZES: Final = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)  # the same
REPEATED: Final = "repeat"  # type of a part of xgrammar's structural tags, which has another part `max` times
MAX_SIZE: Final = 1_000_000  # that one of them may have
MAX_CONTAINERS: Final = 4000  # objects and lists of one value
MAX_DIGITS: Final = 100  # characters of a number in a text: blanks or zeros could hide its sign
MAX_DEPTH: Final = 64  # levels of a schema, as of a body
Fault = tuple[str, str]  # where inside the field ("" or ".regex"), and what is wrong there


class Rule:
    """A rule for one field's value. why: the weakness that it answers; is_nested: it looks at names inside the value;
    by_element: the value is a list whose elements are judged one by one; is_schema: only expressions in it matter."""

    def __init__(
        self, why: str, is_nested: bool = False, by_element: bool = False, is_schema: bool = False
    ) -> None:
        self.why = why
        self.is_nested = is_nested
        self.is_schema = is_schema
        self.by_element = by_element

    def fault(self, value: object) -> Fault | None:
        """Return what is wrong with `value`, a part of JSON, or None."""
        raise NotImplementedError

    def words(self) -> str:
        """Return what the rule allows, for the documentation's table."""
        raise NotImplementedError


class Number(Rule):
    """A number from `least` to `most`."""

    def __init__(self, least: float, most: float, why: str) -> None:
        super().__init__(why)
        self.least = least
        self.most = most
        self._range = f"{number_text(least)} to {number_text(most)}"

    def fault(self, value: object) -> Fault | None:
        number = number_of(value)
        if number is None or self.least <= number <= self.most:
            return None
        return "", f"must be from {self._range}"

    def words(self) -> str:
        return self._range


class Items(Rule):
    """A list of at most `most` items, or one of them alone: texts of at most `longest` characters, or numbers that
    `number` allows. Of an object, the members are counted."""

    def __init__(self, most: int, why: str, longest: int = 0, number: Number | None = None) -> None:
        super().__init__(why)
        self.most = most
        self.longest = longest
        self.number = number

    def fault(self, value: object) -> Fault | None:
        items = value if isinstance(value, list) else list(value) if isinstance(value, dict) else [value]
        if len(items) > self.most:
            return "", f"has {len(items)} items; at most {self.most} are taken"
        for item in items:
            if isinstance(item, str) and len(item) > self.longest > 0:
                return "", f"has a text of {len(item)} characters; at most {self.longest} are taken"
            if self.number is not None and self.number.fault(item) is not None:
                return "", f"has a number that is not from {self.number.words()}"
        return None

    def words(self) -> str:
        more = f" of at most {self.longest:,} characters" if self.longest else ""
        return f"at most {self.most:,} items{more}" + (f", {self.number.words()}" if self.number else "")


class Text(Rule):
    """A text of at most `most` characters."""

    def __init__(self, most: int, why: str) -> None:
        super().__init__(why)
        self.most = most

    def fault(self, value: object) -> Fault | None:
        if isinstance(value, str) and len(value) > self.most:
            return "", f"has {len(value)} characters; at most {self.most} are taken"
        return None

    def words(self) -> str:
        return f"at most {self.most:,} characters"


class Expression(Text):
    """A regular expression or a grammar: short, and without parts that are repeated very often."""

    def fault(self, value: object) -> Fault | None:
        found = super().fault(value)
        if found is None and isinstance(value, str) and "{" in value and repeats(value) > MAX_REPEATS:
            return "", f"repeats its parts more than {MAX_REPEATS} times"
        return found

    def words(self) -> str:
        return f"at most {self.most:,} characters; parts repeated at most {MAX_REPEATS:,} times in all"


class Grammar(Expression):
    """A grammar: as an expression, and its rules, which may repeat one another, are multiplied."""

    def fault(self, value: object) -> Fault | None:
        found = super().fault(value)
        if (
            found is None
            and isinstance(value, str)
            and has_repetition(value)
            and parts_of(value) > MAX_REPEATS
        ):
            return "", f"repeats its parts more than {MAX_REPEATS} times, through rules that repeat others"
        return found


class Object(Rule):
    """An object. inner: rules of its members, None for one that may have any value; is_closed: it has no others;
    refused: members that it may not have, and why."""

    def __init__(
        self, inner: Mapping[str, Rule | None], why: str, is_closed: bool = False,
        refused: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(why, is_nested=True)
        self.inner = dict(inner)
        self.is_closed = is_closed
        self.refused = dict(refused or {})

    def fault(self, value: object) -> Fault | None:
        if not isinstance(value, dict):
            return None
        for name, item in value.items():
            found = self._fault_of(str(name), item)
            if found is not None:
                return f".{name}{found[0]}", found[1]
        return None

    def _fault_of(self, name: str, item: object) -> Fault | None:
        """Return what is wrong with one member."""
        why = self.refused.get(name)
        if why is not None:
            return None if item is None else ("", f"is refused: {why}")
        rule = self.inner.get(name)
        if rule is not None:
            return None if item is None else rule.fault(item)
        is_unknown = self.is_closed and name not in self.inner and item is not None
        return ("", "is not known here") if is_unknown else None

    def words(self) -> str:
        only = f"only {', '.join(f'`{name}`' for name in sorted(self.inner))}" if self.is_closed else ""
        never = f"never {', '.join(f'`{name}`' for name in sorted(self.refused))}" if self.refused else ""
        return "; ".join(part for part in (only, never) if part) or "an object"

    def without(self, path: str, allowed: frozenset[str], is_open: bool) -> "Object":
        """Return the rule without its lines for paths in `allowed`. path: of this object; is_open: let others in."""
        return Object(
            {name: lifted(f"{path}.{name}", rule, allowed, is_open) for name, rule in self.inner.items()}
            | {name.removeprefix(f"{path}."): None for name in allowed if name.startswith(f"{path}.")},
            self.why,
            self.is_closed and not is_open,
            {name: why for name, why in self.refused.items() if f"{path}.{name}" not in allowed},
        )


class Schema(Rule):
    """A JSON schema, or a value that has schemas in it: what is compiled into a grammar. regex, grammar: the rules of
    the regular expressions and grammars inside. Schemas may also be written as JSON in a text (is_text)."""

    def __init__(
        self,
        regex: Expression,
        grammar: Grammar,
        why: str,
        is_text: bool = False,
        by_element: bool = False,
    ) -> None:
        super().__init__(why, is_nested=True, by_element=by_element, is_schema=True)
        self.regex = regex
        self.grammar = grammar
        self.is_text = is_text

    def fault(self, value: object) -> Fault | None:
        if isinstance(value, str):
            return self._fault_of_text(value) if self.is_text else None
        level, depth, repeated = [value], 1, 1
        while level:
            if depth > MAX_DEPTH:
                return "", f"is nested deeper than {MAX_DEPTH} levels"
            below: list[object] = []
            times = 0
            for item in level:
                if isinstance(item, dict):
                    found = self._fault_of_members(item)
                    if found is not None:
                        return found
                    times += times_in(item)
                    below += [inner for inner in item.values() if isinstance(inner, (dict, list))]
                elif isinstance(item, list):
                    below += [inner for inner in item if isinstance(inner, (dict, list))]
            repeated *= max(times, 1)  # as if all of this level had all of the levels below in them
            if repeated > MAX_REPEATS:
                return "", f"repeats its parts more than {MAX_REPEATS} times"
            level, depth = below, depth + 1
        return None

    def _fault_of_text(self, text: str) -> Fault | None:
        """Return what is wrong with a schema that is written as text: a worker's reader might read what ours cannot."""
        if containers_in(text.encode(errors="replace")) > MAX_CONTAINERS:
            return "", f"has more than {MAX_CONTAINERS} objects and lists"
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return "", "is a text that is not JSON"
        return (
            self.fault(value) if isinstance(value, (dict, bool)) else ("", "is a text without a schema in it")
        )

    def _fault_of_members(self, item: dict[str, object]) -> Fault | None:
        """Return what is wrong with the sizes, expressions and grammars that stand in one object, not deeper."""
        for name in SIZES:
            size = item.get(name)
            if isinstance(size, (int, float)) and size > MAX_SIZE:
                return "", f"has a `{name}` of more than {MAX_SIZE}"
        for name in EXPRESSIONS:
            value = item.get(name)
            if value is None:
                continue
            if isinstance(value, dict):
                found = self._fault_of_names(value) if name == "patternProperties" else None
            else:
                found = self.grammar.fault(value) if name == "grammar" else self.regex.fault(value)
            if found is not None:
                return "", f"has a `{name}` that {found[1]}"
        return None

    def _fault_of_names(self, patterns: dict[str, object]) -> Fault | None:
        """Return what is wrong with the names of `patternProperties`, which are regular expressions."""
        for pattern in patterns:
            found = self.regex.fault(pattern)
            if found is not None:
                return found
        return None

    def words(self) -> str:
        sizes = f"sizes such as `maxItems` of at most {MAX_SIZE:,}"
        return f"schemas of at most {MAX_DEPTH} levels, with regular expressions of {self.regex.words()}; {sizes}"


def containers_in(written: bytes) -> int:
    """Return how many objects and lists a JSON text has, at most: brackets in its texts are counted too."""
    return written.count(b"{") + written.count(b"[")


def times_in(item: dict[str, object]) -> int:
    """Return how often a part of a structural tag repeats another one; 0 for any other object."""
    if item.get("type") != REPEATED:
        return 0
    bounds = [item.get("min"), item.get("max")]
    return max(
        [0, *[int(min(bound, MAX_REPEATS + 1)) for bound in bounds if isinstance(bound, (int, float))]]
    )


def has_repetition(grammar: str) -> bool:
    """Whether a grammar may have a repetition with bounds: in braces, or as Lark's `~`."""
    return "{" in grammar or "~" in grammar


def repeats(expression: str) -> int:
    """Return how many parts an expression has once its repetitions are written out, at most; MAX_REPEATS + 1 for more.
    Only groups nest, and what is repeated already: so their numbers are multiplied, those of other parts are added."""
    nested, added, end = 1, 0, 0
    for found in REPEAT.finditer(expression):
        if found[1] is None:  # an escape
            continue
        before = expression[end : found.start()].rstrip()
        times = most_times(found[1], found[2] or "")
        if before[-1] in ")*+?" if before else end > 0:
            nested *= max(times, 1)
        else:
            added += times
        if nested * max(added, 1) > MAX_REPEATS:
            return MAX_REPEATS + 1
        end = found.end()
    return nested * max(added, 1)


def most_times(*bounds: str) -> int:
    """Return the higher bound of a repetition. Without any, or of 0: 0."""
    return max([int(bound or "0") if len(bound) < 6 else MAX_REPEATS + 1 for bound in bounds])


def number_of(value: object) -> float | None:
    """Return the number that a worker reads from `value`: a number, a truth value, or a text; None: none. A text that
    is too long for a number is nan, which is in no range."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        if len(value) > MAX_DIGITS:
            return nan
        try:
            return float(value.replace("_", ""))
        except ValueError:
            return None
    return None


def number_text(number: float) -> str:
    """Return a bound of a range as people write it."""
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


def lifted(path: str, rule: Rule | None, allowed: frozenset[str], is_open: bool) -> Rule | None:
    """Return the rule of the field `path` as the operator wants it: None if any value is to be allowed."""
    if rule is None or path in allowed:
        return None
    return rule.without(path, allowed, is_open) if isinstance(rule, Object) else rule
