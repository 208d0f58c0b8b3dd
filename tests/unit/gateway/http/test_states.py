"""The tables of states: every state is reached, every one has a way to its end, and nothing else is allowed."""

from enum import IntEnum

import pytest

from gateway.http.states import (
    ANSWERS,
    PHASES,
    STAGES,
    STEPS,
    UPSTREAM_STATES,
    AnswerState,
    InvalidTransition,
    Phase,
    Stage,
    Step,
    UpstreamState,
    changed,
)

TABLES = [
    (PHASES, Phase.NEW, Phase.CLOSED),
    (STAGES, Stage.EXPECTING, Stage.OVER),
    (STEPS, Step.NEW, Step.OVER),
    (ANSWERS, AnswerState.AWAITED, AnswerState.GIVEN_UP),
    (UPSTREAM_STATES, UpstreamState.NEW, UpstreamState.CLOSED),
]
NAMES = ["connection", "request", "call", "answer", "line"]
AGAIN = {Step.SENT}  # what may follow itself: a call may be sent again


@pytest.mark.parametrize(("table", "first", "last"), TABLES, ids=NAMES)
def test_every_state_is_on_a_way_from_first_to_last(table: dict, first: IntEnum, last: IntEnum) -> None:  # type: ignore[type-arg]
    """No state is beside the ways that the table allows, and from each the end is one step away."""
    reached, new = set(), {first}
    while new:
        reached |= new
        new = {after for state in new for after in table[state]} - reached
    assert reached == set(type(first)) == set(table)
    assert [state for state in table if table[state] and last not in table[state]] == []
    assert table[last] == ()


@pytest.mark.parametrize(("table", "first", "last"), TABLES, ids=NAMES)
def test_changes(table: dict, first: IntEnum, last: IntEnum) -> None:  # type: ignore[type-arg]
    """Each pair of states: allowed as the table says, else a fault that names both."""
    for old in type(first):
        for new in type(first):
            if new in table[old]:
                assert changed(table, old, new) is new
            else:
                with pytest.raises(InvalidTransition, match=f"{old.name}.* cannot become .*{new.name}"):
                    changed(table, old, new)
    assert {state for state, after in table.items() if state in after} <= AGAIN
