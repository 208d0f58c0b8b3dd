"""Which fields a request may have: the tables of `request_fields`, as the operator's settings change them."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from gateway.api.errors import InvalidRequest
from gateway.config.field_rules import Fault, Rule, lifted
from gateway.config.request_fields import REFUSED, REFUSED_PARTS, ROUTE_FIELDS, RULES

MAX_SHOWN: Final = 100  # characters of a client's name for a field, in an error


class Mode(Enum):
    """strict: a field must be in a table; permissive: only what is known to harm is refused."""

    STRICT = "strict"
    PERMISSIVE = "permissive"


class RoutePolicy:
    """The fields of one route. known: those that a request may have, None if any; refused: others that it may not have,
    and why; parts: members that a content part may not have, and why; rules: of the values of some fields; watched:
    what may stand once."""

    def __init__(
        self, known: frozenset[str] | None, refused: Mapping[str, str], parts: Mapping[str, str],
        rules: Mapping[str, Rule],
    ) -> None:  # fmt: skip
        self.known = known
        self.refused = dict(refused)
        self.parts = dict(parts)
        self.rules = dict(rules)
        self.watched = frozenset([b"model", b"stream", *[name.encode() for name in self.rules]])

    def takes(self, name: str) -> bool:
        """Whether a request may have a field of this name, with some value."""
        return name not in self.refused if self.known is None else name in self.known

    def fault(self, name: str, value: object) -> Fault | None:
        """Return what is wrong with a field's value. null is as good as no field."""
        rule = self.rules.get(name)
        return None if rule is None or value is None else rule.fault(value)

    def not_taken(self, path: str) -> InvalidRequest:
        """Return the error for a field that is refused. path: its name, or `messages.content.uuid` for a part's."""
        why = self.refused.get(path) or self.parts.get(path.rpartition(".")[2])
        shown = path[:MAX_SHOWN]
        what = "is no field that is known here" if why is None else f"is refused: {why}"
        return InvalidRequest(f"`{shown}` {what}. {advice(shown)}", shown)

    def wrong_value(self, name: str, found: Fault) -> InvalidRequest:
        """Return the error for a value that a rule refuses. found: what the rule says."""
        path = f"{name}{found[0]}"[:MAX_SHOWN]
        rule = self.rules[name]
        why = "" if ": " in found[1] else f" ({rule.why})"
        return InvalidRequest(f"`{path}` {found[1]}{why}. {advice(path)}", path)


class FieldPolicy:
    """The fields of every route. allowed: paths that the operator lets pass with any value."""

    def __init__(self, mode: Mode = Mode.STRICT, allowed: Iterable[str] = ()) -> None:
        lets = frozenset(allowed)
        self._routes = {route: policy_of(known, mode, lets) for route, known in ROUTE_FIELDS.items()}

    def of(self, route: str) -> RoutePolicy:
        """Return what a route takes. A route that has no JSON or form takes anything."""
        return self._routes.get(route) or RoutePolicy(None, {}, {}, {})


def policy_of(known: frozenset[str], mode: Mode, allowed: frozenset[str]) -> RoutePolicy:
    """Return the policy of a route. known: the route's fields in the table."""
    is_open = mode is Mode.PERMISSIVE
    names = {path.rpartition(".")[2] for path in allowed if "." in path}
    rules = {name: lifted(name, rule, allowed, is_open) for name, rule in RULES.items()}
    return RoutePolicy(
        None if is_open else known | {name for name in allowed if "." not in name},
        {name: why for name, why in REFUSED.items() if name not in allowed},
        {name: why for name, why in REFUSED_PARTS.items() if name not in names},
        {name: rule for name, rule in rules.items() if rule is not None and (is_open or name in known)},
    )


def advice(path: str) -> str:
    """Return what an operator can do about a refused field."""
    return f"An operator who trusts every client can allow it: GATEWAY_ALLOWED_FIELDS={path}"
