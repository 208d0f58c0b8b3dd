"""The tables of docs/request-fields.md, made of the gateway's data. Run as a program, it writes them there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.config.field_rules import Object, Rule
from gateway.config.request_fields import REFUSED, REFUSED_PARTS, ROUTE_FIELDS, RULES

PAGE = Path(__file__).resolve().parents[2] / "docs/request-fields.md"
MARK = "<!-- tables -->\n"


def tables() -> str:
    """All three, below the page's mark."""
    return "\n".join([*known(), *refused(), *values()])


def known() -> Iterator[str]:
    """The fields of each route."""
    yield from ("", "## Fields by route", "", "| route | fields |", "|---|---|")
    for route, names in ROUTE_FIELDS.items():
        yield f"| {route} | {', '.join(f'`{name}`' for name in sorted(names))} |"


def refused() -> Iterator[str]:
    """What is refused by name, at the top and inside."""
    yield from ("", "## Refused on every route", "", "| field | why |", "|---|---|")
    yield from (f"| `{name}` | {why} |" for name, why in REFUSED.items())
    yield from (f"| `messages.content.{name}` | {why} |" for name, why in REFUSED_PARTS.items())
    for name, rule in RULES.items():
        if isinstance(rule, Object):
            yield from (f"| `{name}.{inner}` | {why} |" for inner, why in rule.refused.items())


def values() -> Iterator[str]:
    """The bounds of values."""
    yield from ("", "## Values", "", "| field | taken | why |", "|---|---|---|")
    yield from rows(RULES)
    yield ""


def rows(rules: Mapping[str, Rule | None], around: str = "") -> Iterator[str]:
    """One row for each rule, and for those inside it."""
    for name, rule in rules.items():
        if rule is not None:
            yield f"| `{around}{name}` | {rule.words()} | {rule.why} |"
        if isinstance(rule, Object):
            yield from rows(rule.inner, f"{around}{name}.")


def written(page: str) -> str:
    """The page with these tables."""
    return page.partition(MARK)[0] + MARK + tables()


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
