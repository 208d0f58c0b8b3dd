"""The table of routes: every row by its path, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.routes import TABLE, Kind, Routes

ROUTES = Routes()


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.name)
def test_every_row_is_found(route: object) -> None:
    """By its path, an id put in where one belongs."""
    (row,) = [one for one in TABLE if one is route]
    assert ROUTES.find(row.path.replace(b"{id}", b"resp_1")) is row


def test_vllms_own_spelling_is_the_same_row() -> None:
    """What vLLM serves outside /v1 is found there too."""
    assert ROUTES.find(b"/tokenize") is ROUTES.find(b"/v1/tokenize") is not None


@given(some.binary(max_size=40))
def test_nothing_else_is_a_route(path: bytes) -> None:
    """What differs from the table's paths by anything is none of them."""
    known = {route.path for route in TABLE} | {route.target for route in TABLE}
    found = ROUTES.find(path)
    assert found is None or path in known or found.kind is Kind.STORED


@pytest.mark.parametrize(
    "path", [b"/v1/responses/", b"/v1/responses/a/b", b"/v1/responses/a/cancel/", b"/v1/responses//cancel"]
)
def test_an_id_is_one_part_of_a_path(path: bytes) -> None:
    """Neither empty nor with a slash."""
    assert ROUTES.find(path) is None


def test_names_and_paths_are_unique() -> None:
    """A label in the metrics is one row."""
    assert len({route.name for route in TABLE}) == len({route.path for route in TABLE}) == len(TABLE)
