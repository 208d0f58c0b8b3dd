"""The launcher's log is one JSON object a line with fixed first fields."""

from __future__ import annotations

import io
import json

from launcher.status.logs import Log


def test_a_line_has_the_fixed_fields_and_those_given() -> None:
    """Fields that are None are left out; Chinese stays readable; a line break stays inside its line."""
    out = io.BytesIO()
    Log("a", out).error("crash", cause="内存不足\nand more", signal=None, run=2)
    assert out.getvalue().count(b"\n") == 1
    line = json.loads(out.getvalue())
    assert line.pop("ts").endswith("Z")
    expected = {"level": "error", "logger": "launcher", "slug": "a", "event": "crash"}
    assert expected | {"cause": "内存不足\nand more", "run": 2} == line
    assert "内存不足".encode() in out.getvalue()
