"""What the audit log tells of a new content of the key file."""

from dataclasses import replace

import pytest

from gateway.config.api_keys import ApiKey, Limits, Priority
from gateway.config.key_changes import KeyChange, Keys, changes

A = ApiKey("a", label="a")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"1": A}, {"1": replace(A, label="other", edition=7, salt=b"other")}, []),
        ({}, {"1": A}, [KeyChange("a", "added")]),
        ({"1": A}, {}, [KeyChange("a", "removed")]),
        ({"1": A}, {"1": replace(A, revoked=1.0)}, [KeyChange("a", "revoked")]),
        ({"1": replace(A, revoked=1.0)}, {"1": A}, [KeyChange("a", "restored")]),
        ({"1": A}, {"1": A, "2": A}, [KeyChange("a", "replaced")]),
        ({"1": A, "2": A}, {"2": A}, [KeyChange("a", "replaced")]),
        ({"1": A}, {"1": replace(A, limits=Limits(rpm=1))}, [KeyChange("a", "changed", ("limits",))]),
        (
            {"1": A},
            {"1": replace(A, models=frozenset({"m"}), priority=Priority.BULK, expires=9.0)},
            [KeyChange("a", "changed", ("models", "priority", "expires"))],
        ),
        (
            {"1": A},
            {"2": replace(A, admin=True)},
            [KeyChange("a", "replaced"), KeyChange("a", "changed", ("admin",))],
        ),
        ({"1": A}, {"2": ApiKey("b")}, [KeyChange("a", "removed"), KeyChange("b", "added")]),
    ],
)
def test_changes_are_told_by_name(before: Keys, after: Keys, told: list[KeyChange]) -> None:
    """Never by digest."""
    assert changes(before, after) == told
