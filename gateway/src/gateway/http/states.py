"""The states of each object that a request passes through, and tables of which state may follow which. Pure.

Client's connection: Phase. Its request: Stage. The request's handler in `proxy/`: Step. The handler's exchange with a
worker: AnswerState. The connection to the worker: UpstreamState. Each owner changes its state with `changed`."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeVar


class Numbered(IntEnum):
    """A state that is fast to look up in a table: it hashes as a number, while an Enum's own hash runs Python code."""

    __hash__ = int.__hash__


class Phase(Numbered):
    """What a client's connection does with the bytes that it receives."""

    NEW = 0  # nothing received yet
    IDLE = 1  # between two requests
    HEAD = 2  # a head has begun
    BODY = 3  # a request's body is arriving
    SERVING = 4  # a whole request has arrived, and its answer is due
    HOLDING = 5  # reading is paused, bytes wait unparsed: an answer is due, or not yet taken by the client
    LAST = 6  # the connection's final answer is due: further bytes are dropped
    LINGERING = 7  # the last answer is sent: bytes are dropped until the client closes (glossary: lingering)
    CLOSED = 8


class Stage(Numbered):
    """How far a client's request and its answer are."""

    EXPECTING = 0  # the client waits for `100 Continue` before it sends the body
    ARRIVING = 1  # the body is arriving
    WHOLE = 2  # the body is complete
    REFUSED = 3  # refused before the body was complete; the rest is not waited for
    RUNNING = 4  # the handler has started
    ANSWERING = 5  # the answer's status and headers are fixed
    OVER = 6


class Step(Numbered):
    """What the handler of a proxied request is doing."""

    NEW = 0
    DECODING = 1  # a thread decompresses the body or joins its pieces
    READING = 2  # the body is scanned, in turn with other requests' bodies
    RESERVING = 3  # the Redis of several gateways is asked whether the key's limits allow the request
    QUEUED = 4  # the request waits for a worker with room
    SENT = 5  # the request was sent to a worker that has not answered
    ANSWERED = 6  # a worker's response head has arrived: from now on the request cannot be sent again
    OVER = 7


class AnswerState(Numbered):
    """How far a worker's answer in one exchange is."""

    AWAITED = 0
    BEGUN = 1  # its head was passed to the receiver
    COMPLETE = 2
    FAILED = 3
    GIVEN_UP = 4  # cancelled: the receiver is not called any more


class UpstreamState(Numbered):
    """What a connection to a worker waits for."""

    NEW = 0  # not connected yet
    IDLE = 1  # no exchange runs on it
    ASKED = 2  # a request was sent, and no byte of the answer has arrived
    HEAD = 3  # the answer's head is arriving
    BODY = 4  # the answer's body is arriving
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
    Step.NEW: (Step.DECODING, Step.READING, Step.RESERVING, Step.QUEUED, Step.SENT, Step.OVER),
    Step.DECODING: (Step.READING, Step.RESERVING, Step.QUEUED, Step.SENT, Step.OVER),
    Step.READING: (Step.RESERVING, Step.QUEUED, Step.SENT, Step.OVER),
    Step.RESERVING: (Step.QUEUED, Step.SENT, Step.OVER),
    Step.QUEUED: (Step.SENT, Step.OVER),
    Step.SENT: (Step.SENT, Step.ANSWERED, Step.OVER),  # it may be sent again
    Step.ANSWERED: (Step.OVER,),
    Step.OVER: (),
}

ANSWERS: Final[Mapping[AnswerState, tuple[AnswerState, ...]]] = {
    AnswerState.AWAITED: (AnswerState.BEGUN, AnswerState.FAILED, AnswerState.GIVEN_UP),
    AnswerState.BEGUN: (AnswerState.COMPLETE, AnswerState.FAILED, AnswerState.GIVEN_UP),
    AnswerState.COMPLETE: (),
    AnswerState.FAILED: (),
    AnswerState.GIVEN_UP: (),
}

UPSTREAM_STATES: Final[Mapping[UpstreamState, tuple[UpstreamState, ...]]] = {
    UpstreamState.NEW: (UpstreamState.IDLE, UpstreamState.CLOSED),
    UpstreamState.IDLE: (UpstreamState.ASKED, UpstreamState.CLOSED),
    UpstreamState.ASKED: (UpstreamState.HEAD, UpstreamState.CLOSED),
    UpstreamState.HEAD: (UpstreamState.BODY, UpstreamState.CLOSED),
    UpstreamState.BODY: (UpstreamState.IDLE, UpstreamState.CLOSED),
    UpstreamState.CLOSED: (),
}

State = TypeVar("State", bound=Numbered)


class InvalidTransition(Exception):
    """A change of state that the table does not allow: a bug in the gateway."""


def changed(table: Mapping[State, tuple[State, ...]], old: State, new: State) -> State:
    """Return `new` if `table` lets it follow `old`; each owner's `_become` stores it. Raises InvalidTransition."""
    if new not in table[old]:
        raise InvalidTransition(f"{old!r} cannot become {new!r}")
    return new
