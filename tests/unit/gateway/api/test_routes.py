"""The table of routes: every row by its path, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.api.routes import TABLE, Kind, Routes, spellings

ROUTES = Routes()


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.name)
def test_every_row_is_found(route: object) -> None:
    """By its path, an id put in where one belongs."""
    (row,) = [one for one in TABLE if one is route]
    assert ROUTES.find(row.path.replace(b"{id}", b"resp_1")) is row


VLLMS_OWN = {  # what vLLM 0.32 serves under more than one path, or outside /v1
    b"/v1/rerank": [b"/rerank", b"/v2/rerank"],
    b"/v1/score": [b"/score"],
    b"/v1/pooling": [b"/pooling"],
    b"/v1/classify": [b"/classify"],
    b"/v1/tokenize": [b"/tokenize"],
    b"/v1/detokenize": [b"/detokenize"],
}


@pytest.mark.parametrize("path", VLLMS_OWN)
def test_vllms_own_spellings_are_the_same_row(path: bytes) -> None:
    """Whatever vLLM calls a route, it is found under that path too."""
    row = ROUTES.find(path)
    assert row is not None
    assert [ROUTES.find(spelling) for spelling in VLLMS_OWN[path]] == [row] * len(VLLMS_OWN[path])


@pytest.mark.parametrize("path", sorted(path for route in TABLE for path in spellings(route)))
def test_a_slash_at_the_end_does_not_count(path: bytes) -> None:
    """One does not; two make another path."""
    path = path.replace(b"{id}", b"resp_1")
    assert ROUTES.find(path + b"/") is ROUTES.find(path) is not None
    assert ROUTES.find(path + b"//") is None


@given(some.binary(max_size=40))
def test_nothing_else_is_a_route(path: bytes) -> None:
    """What differs from the table's paths by anything is none of them."""
    known = {path for route in TABLE for path in spellings(route)}
    found = ROUTES.find(path)
    assert found is None or path.removesuffix(b"/") in known or found.kind is Kind.STORED


@pytest.mark.parametrize(
    "path", [b"/v1/responses//", b"/v1/responses/a/b", b"/v1/responses/a/cancel/b", b"/v1/responses//cancel"]
)
def test_an_id_is_one_part_of_a_path(path: bytes) -> None:
    """Neither empty nor with a slash."""
    assert ROUTES.find(path) is None


def test_names_and_paths_are_unique() -> None:
    """A label in the metrics is one row."""
    assert len({route.name for route in TABLE}) == len({route.path for route in TABLE}) == len(TABLE)
