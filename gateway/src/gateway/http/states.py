"""The states of a client's connection and a request on it, of its handler, of its exchanges with workers and of their
connections; and which may follow which."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeVar


class Numbered(IntEnum):
    """A state that tables are asked for at once: the hash of an enum's member is Python code, a number's is not."""

    __hash__ = int.__hash__


class Phase(Numbered):
    """Of a connection: what is done with the bytes that come."""

    NEW = 0  # nothing has come yet
    IDLE = 1  # no request is there
    HEAD = 2  # a head has begun
    BODY = 3  # a request's body comes
    SERVING = 4  # an answer is due
    HOLDING = 5  # bytes behind that request are kept until their turn comes; nothing more is read
    LAST = 6  # no request is taken any more: what comes is dropped, an answer is due
    LINGERING = 7  # all is said: what comes is dropped until the client closes, since a reset could cost it the answer
    CLOSED = 8


class Stage(Numbered):
    """Of a request: how far it and its answer have come."""

    EXPECTING = 0  # its client waits for `100 Continue` before it sends the body
    ARRIVING = 1  # its body comes
    WHOLE = 2
    REFUSED = 3  # before its body was whole, which is not awaited
    RUNNING = 4  # its handler is at work
    ANSWERING = 5  # the answer's head is made
    OVER = 6


class Step(Numbered):
    """Of a proxied request: how far it has come."""

    NEW = 0
    DECODING = 1  # its body is, in a thread, or is put together there
    READING = 2  # its body is read, in turn with others
    QUEUED = 3  # waits for a worker with room
    SENT = 4  # is with a worker, which has not answered
    ANSWERED = 5  # a worker's head has come: from now on it cannot be sent again
    OVER = 6


class Answer(Numbered):
    """Of an exchange: how far the answer to one sending has come."""

    AWAITED = 0
    BEGUN = 1  # its head has been told
    COMPLETE = 2
    FAILED = 3
    GIVEN_UP = 4  # its receiver hears no more


class Line(Numbered):
    """Of a connection to a worker."""

    NEW = 0
    IDLE = 1
    ASKED = 2  # a request was sent, and not a byte has come
    HEAD = 3  # the answer's head comes in
    BODY = 4
    CLOSED = 5


PHASES: Final[Mapping[Phase, tuple[Phase, ...]]] = {
    Phase.NEW: (Phase.HEAD, Phase.BODY, Phase.SERVING, Phase.LAST, Phase.CLOSED),
    Phase.IDLE: (Phase.HEAD, Phase.BODY, Phase.SERVING, Phase.HOLDING, Phase.LAST, Phase.CLOSED),
    Phase.HEAD: (Phase.IDLE, Phase.BODY, Phase.SERVING, Phase.HOLDING, Phase.LAST, Phase.CLOSED),
    Phase.BODY: (Phase.SERVING, Phase.LAST, Phase.CLOSED),
    Phase.SERVING: (Phase.IDLE, Phase.HOLDING, Phase.LAST, Phase.CLOSED),
    Phase.HOLDING: (Phase.IDLE, Phase.LAST, Phase.CLOSED),
    Phase.LAST: (Phase.LINGERING, Phase.CLOSED),
    Phase.LINGERING: (Phase.CLOSED,),
    Phase.CLOSED: (),
}

STAGES: Final[Mapping[Stage, tuple[Stage, ...]]] = {
    Stage.EXPECTING: (Stage.ARRIVING, Stage.WHOLE, Stage.REFUSED, Stage.ANSWERING, Stage.OVER),
    Stage.ARRIVING: (Stage.WHOLE, Stage.REFUSED, Stage.ANSWERING, Stage.OVER),
    Stage.WHOLE: (Stage.RUNNING, Stage.OVER),
    Stage.REFUSED: (Stage.RUNNING, Stage.OVER),
    Stage.RUNNING: (Stage.ANSWERING, Stage.OVER),
    Stage.ANSWERING: (Stage.OVER,),
    Stage.OVER: (),
}

STEPS: Final[Mapping[Step, tuple[Step, ...]]] = {
    Step.NEW: (Step.DECODING, Step.READING, Step.QUEUED, Step.SENT, Step.OVER),
    Step.DECODING: (Step.READING, Step.QUEUED, Step.SENT, Step.OVER),
    Step.READING: (Step.QUEUED, Step.SENT, Step.OVER),
    Step.QUEUED: (Step.SENT, Step.OVER),
    Step.SENT: (Step.SENT, Step.ANSWERED, Step.OVER),  # it may be sent again
    Step.ANSWERED: (Step.OVER,),
    Step.OVER: (),
}

ANSWERS: Final[Mapping[Answer, tuple[Answer, ...]]] = {
    Answer.AWAITED: (Answer.BEGUN, Answer.FAILED, Answer.GIVEN_UP),
    Answer.BEGUN: (Answer.COMPLETE, Answer.FAILED, Answer.GIVEN_UP),
    Answer.COMPLETE: (),
    Answer.FAILED: (),
    Answer.GIVEN_UP: (),
}

LINES: Final[Mapping[Line, tuple[Line, ...]]] = {
    Line.NEW: (Line.IDLE, Line.CLOSED),
    Line.IDLE: (Line.ASKED, Line.CLOSED),
    Line.ASKED: (Line.HEAD, Line.CLOSED),
    Line.HEAD: (Line.BODY, Line.CLOSED),
    Line.BODY: (Line.IDLE, Line.CLOSED),
    Line.CLOSED: (),
}

State = TypeVar("State", bound=Numbered)


class InvalidTransition(Exception):
    """A change that the table does not allow: a fault of the gateway's own."""


def changed(table: Mapping[State, tuple[State, ...]], old: State, new: State) -> State:
    """`new`, if it may follow `old`. Raises WrongChange."""
    if new not in table[old]:
        raise InvalidTransition(f"{old!r} cannot become {new!r}")
    return new
