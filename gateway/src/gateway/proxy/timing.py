"""Measure when an answer's bytes come, and tell which deadline has passed. Pure; all times are seconds of one clock."""

from gateway.config.model_options import Deadlines


class Timing:
    """The times of one request, whose handler owns this. vLLM sends a stream's head at once, so the first byte means
    the first of the body. started: when the request arrived; heard: when the worker last sent something, got the
    request, or was read again; commented: when the last comment was sent; first_byte: seconds from the start; pieces:
    how many came; paused: the client is slow."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.heard = self.commented = 0.0
        self.first_byte: float | None = None
        self.pieces = 0
        self.paused = False

    def note(self, now: float) -> bool:
        """Note the time of a piece of the answer's body. Return whether it is the first."""
        self.heard = now
        self.pieces += 1
        if self.first_byte is not None:
            return False
        self.first_byte = now - self.started
        return True

    def resume(self, now: float) -> None:
        """End a pause. The time until now does not count as the worker's silence, since nothing was read."""
        self.paused, self.heard = False, now

    def overdue(self, limits: Deadlines, moved: float, now: float) -> str | None:
        """Return in words, for the error, which deadline has passed, or None; while the client is slow only `total_s`
        holds. moved: when the worker's engine last made progress, a sign of life: vLLM may send nothing for minutes
        while it generates, since it holds back a tool call's arguments until they are whole, or works off a queue."""
        if now - self.started > limits.total_s:
            return f"the whole answer took longer than {limits.total_s:g} s"
        limit = limits.first_byte_s if self.first_byte is None else limits.idle_s
        if self.paused or now - max(self.heard, moved) <= limit:
            return None
        return f"nothing came for {limit:g} s, and its metrics showed no progress"

    def is_silent(self, seconds: float, now: float) -> bool:
        """Whether the client has been sent nothing for `seconds`, though it reads, so that a comment is due."""
        return not self.paused and now - max(self.heard, self.commented) > seconds

    def between_pieces(self) -> float | None:
        """Return the mean seconds between two pieces, for the metrics, or None if there were fewer than two."""
        if self.first_byte is None or self.pieces < 2:
            return None
        return (self.heard - self.started - self.first_byte) / (self.pieces - 1)
