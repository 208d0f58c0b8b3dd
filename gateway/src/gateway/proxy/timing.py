"""How an answer comes in: its first byte, its pieces, its silences. Pure; every time is in seconds of one clock."""

from gateway.config.model_options import Deadlines


class Timing:
    """Of one request. vLLM sends a stream's head at once, so that the first byte is the first of the body.

    heard: when the worker was last heard; first_byte: seconds from the start; paused: the client does not keep up.
    """

    def __init__(self, started: float) -> None:
        self.started = started
        self.heard = self.commented = 0.0
        self.first_byte: float | None = None
        self.pieces = 0
        self.paused = False

    def note(self, now: float) -> bool:
        """A piece of the body has come; whether it is the first."""
        self.heard = now
        self.pieces += 1
        if self.first_byte is not None:
            return False
        self.first_byte = now - self.started
        return True

    def resume(self, now: float) -> None:
        """The client keeps up again: the silence until now was its own."""
        self.paused, self.heard = False, now

    def overdue(self, limits: Deadlines, moved: float, now: float) -> str | None:
        """Which deadline has passed, in words. moved: when the worker's engine last made progress.

        An engine that generates may still say nothing for minutes: a parser holds back a tool call's arguments until
        they are whole, and a long queue is worked off first. That is no silence.
        """
        if now - self.started > limits.total_s:
            return f"the whole answer took longer than {limits.total_s:g} s"
        limit = limits.first_byte_s if self.first_byte is None else limits.idle_s
        if self.paused or now - max(self.heard, moved) <= limit:
            return None
        return f"nothing came for {limit:g} s, and its metrics showed no progress"

    def is_silent(self, seconds: float, now: float) -> bool:
        """Whether the client has heard nothing for that long, for want of anything to say."""
        return not self.paused and now - max(self.heard, self.commented) > seconds

    def between_pieces(self) -> float | None:
        """Mean seconds between two pieces, or None where there were not two."""
        if self.first_byte is None or self.pieces < 2:
            return None
        return (self.heard - self.started - self.first_byte) / (self.pieces - 1)
