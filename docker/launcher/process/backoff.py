"""The pause before vLLM is started again after a crash: min(base * 2**(failures - 1), 600) seconds. Pure."""

from dataclasses import dataclass, replace

CAP_S = 600.0  # longest pause; and a crash counts as the first again if the run was ready for so long
_MAX_EXPONENT = 32  # far beyond the cap for any sensible base, and no float overflows on the way


@dataclass(frozen=True)
class Backoff:
    """The pause before vLLM's next start. `failures` counts crashes and hangs in a row. `Supervisor` owns it."""

    base_s: float = 10.0
    failures: int = 0

    def after_crash(self, ready_s: float) -> "Backoff":
        """Return the back-off after one more crash or hang, of a run that had been ready for `ready_s` seconds."""
        return replace(self, failures=1 if ready_s >= CAP_S else self.failures + 1)

    @property
    def delay_s(self) -> float:
        """Seconds to wait before the next start; 0 before any crash."""
        if self.failures == 0:
            return 0.0
        return min(self.base_s * 2.0 ** min(self.failures - 1, _MAX_EXPONENT), CAP_S)
