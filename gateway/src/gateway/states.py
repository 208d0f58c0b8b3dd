"""The states of a client's connection and of a request on it, and which may follow which."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeVar


class Phase(IntEnum):
    """Of a connection: what is done with the bytes that come."""

    NEW = 0  # nothing has come yet
    IDLE = 1  # no request is there
    HEAD = 2  # a head has begun
    BODY = 3  # a request's body comes
    SERVING = 4  # an answer is due
    HOLDING = 5  # bytes behind that request are kept until their turn comes; nothing more is read
    LAST = 6  # no request is taken any more: what comes is dropped, an answer is due
    LINGERING = (
        7  # all is said: what comes is dropped until the client closes, as a reset would cost it the answer
    )
    CLOSED = 8


class Stage(IntEnum):
    """Of a request: how far it and its answer have come."""

    EXPECTING = 0  # its client waits for `100 Continue` before it sends the body
    ARRIVING = 1  # its body comes
    WHOLE = 2
    REFUSED = 3  # before its body was whole, which is not awaited
    RUNNING = 4  # its handler is at work
    ANSWERING = 5  # the answer's head is made
    OVER = 6


PHASES: Final[Mapping[Phase, tuple[Phase, ...]]] = {
    Phase.NEW: (Phase.IDLE, Phase.HEAD, Phase.BODY, Phase.SERVING, Phase.LAST, Phase.LINGERING, Phase.CLOSED),
    Phase.IDLE: (
        Phase.HEAD, Phase.BODY, Phase.SERVING, Phase.HOLDING, Phase.LAST, Phase.LINGERING, Phase.CLOSED,
    ),
    Phase.HEAD: (
        Phase.IDLE, Phase.BODY, Phase.SERVING, Phase.HOLDING, Phase.LAST, Phase.LINGERING, Phase.CLOSED,
    ),
    Phase.BODY: (Phase.SERVING, Phase.LAST, Phase.LINGERING, Phase.CLOSED),
    Phase.SERVING: (Phase.IDLE, Phase.HOLDING, Phase.LAST, Phase.LINGERING, Phase.CLOSED),
    Phase.HOLDING: (Phase.IDLE, Phase.LAST, Phase.LINGERING, Phase.CLOSED),
    Phase.LAST: (Phase.LINGERING, Phase.CLOSED),
    Phase.LINGERING: (Phase.CLOSED,),
    Phase.CLOSED: (),
}  # fmt: skip

STAGES: Final[Mapping[Stage, tuple[Stage, ...]]] = {
    Stage.EXPECTING: (Stage.ARRIVING, Stage.WHOLE, Stage.REFUSED, Stage.ANSWERING, Stage.OVER),
    Stage.ARRIVING: (Stage.WHOLE, Stage.REFUSED, Stage.ANSWERING, Stage.OVER),
    Stage.WHOLE: (Stage.RUNNING, Stage.ANSWERING, Stage.OVER),
    Stage.REFUSED: (Stage.RUNNING, Stage.ANSWERING, Stage.OVER),
    Stage.RUNNING: (Stage.ANSWERING, Stage.OVER),
    Stage.ANSWERING: (Stage.OVER,),
    Stage.OVER: (),
}

State = TypeVar("State", Phase, Stage)


class WrongChange(Exception):
    """A change that the table does not allow: a fault of the gateway's own."""


def changed(table: Mapping[State, tuple[State, ...]], old: State, new: State) -> State:
    """`new`, if it may follow `old`. Raises WrongChange."""
    if new not in table[old]:
        raise WrongChange(f"{old!r} cannot become {new!r}")
    return new
