"""Writes serve.yaml anew with some options changed; every other line, comments among them, stays. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from bench.tune.option import Changes


def text(shipped: str, changes: Changes, remarks: str = "") -> str:
    """Return serve.yaml's text with these changes; `remarks` are comments that go before everything else."""
    lines = shipped.splitlines()
    options: dict[str, Any] = yaml.safe_load(shipped)
    for name, value in _whole(options, changes).items():
        lines = _without(lines, name) if value is None else _with(lines, name, value)
    return remarks + "\n".join(lines) + "\n"


def _whole(options: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Return the new value of each option in serve.yaml: a change with a dot becomes that of a whole JSON object."""
    found: dict[str, Any] = {}
    for name, value in changes.items():
        outer, _, inner = name.partition(".")
        if not inner:
            found[name] = value
            continue
        before = found.get(outer, options.get(outer))
        fields = dict(yaml.safe_load(before) if isinstance(before, str) else before or {})
        if value is None:
            fields.pop(inner, None)
        else:
            fields[inner] = value
        found[outer] = json.dumps(fields) if fields else None
    return found


def _without(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if not _is_of(line, name)]


def _with(lines: list[str], name: str, value: object) -> list[str]:
    """Change the option's line where it is, or append one."""
    line = yaml.safe_dump({name: value}, default_flow_style=False, width=10_000).rstrip("\n")
    if any(_is_of(old, name) for old in lines):
        return [line if _is_of(old, name) else old for old in lines]
    return [*lines, "", line]


def _is_of(line: str, name: str) -> bool:
    return re.match(rf"{re.escape(name)}\s*:", line) is not None
