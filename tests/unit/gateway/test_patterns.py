"""Expressions that mean the same in every Python that an image may have."""

from __future__ import annotations

import importlib
import pkgutil
import re
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import gateway

REPEATS = {codes.MAX_REPEAT, codes.MIN_REPEAT}


def patterns() -> dict[str, re.Pattern[Any]]:
    """Every compiled expression of the gateway, by its module and name."""
    names = [module.name for module in pkgutil.walk_packages(gateway.__path__, "gateway.")]
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    return {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    }


def has_choice(tree: Any, *, within: bool = False) -> bool:
    """Whether something possessive has a part that can be matched in several ways."""
    for code, value in tree:
        if within and (code is codes.BRANCH or code in REPEATS):
            return True
        inside = within or code in (codes.POSSESSIVE_REPEAT, codes.ATOMIC_GROUP)
        parts = value if isinstance(value, tuple) else (value,)
        nested = [part for part in parts if isinstance(part, parser.SubPattern)]
        if code is codes.BRANCH:
            nested = list(value[1])
        if any(has_choice(part, within=inside) for part in nested):
            return True
    return False


def test_nothing_possessive_has_a_choice_within() -> None:
    """Before 3.11.5 Python matched those wrongly (gh-106052): Debian 12's refused every third chat as no JSON."""
    found = patterns()
    assert len(found) > 10
    assert [name for name, one in found.items() if has_choice(parser.parse(one.pattern, one.flags))] == []


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        ("(?:ab|c)*+", True),
        ("(?>ab?c)", True),
        ("(?:(?:ab)*c)++", True),
        ("(?:ab++)*+", False),
        ("(?:ab|c)*", False),
    ],
)
def test_the_check_sees_what_it_is_for(pattern: str, wrong: bool) -> None:
    assert has_choice(parser.parse(pattern)) is wrong
