"""The tiles that are tried for experts, and which of those measured are kept."""

from __future__ import annotations

from bench.gpu import experts

OWN = {"BLOCK_SIZE_M": 16}
FAST = {"BLOCK_SIZE_M": 32}


def test_the_fastest_tiles_are_kept_where_they_are_worth_it() -> None:
    """2 % is noise: vLLM's own stay then."""
    rows = [(1, None, 100.0), (1, FAST, 97.0), (8, None, 100.0), (8, FAST, 99.0)]
    assert experts.best(rows, lambda batch: OWN) == {1: FAST, 8: OWN}


def test_tiles_that_do_not_fit_the_card_are_never_chosen() -> None:
    rows = [(4, None, 50.0), (4, FAST, float("inf"))]
    assert experts.best(rows, lambda batch: OWN) == {4: OWN}


def test_blocks_of_fp8_weights_are_read_whole() -> None:
    """A tile deeper than the block that shares a scale, or a part of it, is none that the kernel takes."""
    assert {tiles["BLOCK_SIZE_K"] for tiles in experts.candidates(1, fp8=True)} == {experts.BLOCK}


def test_a_candidate_is_tried_once() -> None:
    for batch in (1, 64, 128, 8192):
        tried = [tuple(sorted(tiles.items())) for tiles in experts.candidates(batch, fp8=False)]
        assert len(tried) == len(set(tried)) > 40


def test_an_error_counts_as_never_done() -> None:
    def fails() -> float:
        raise RuntimeError("out of shared memory")

    assert experts.tried(fails) == float("inf")
