"""How many requests may be sent a second time: a share of all, so that a failing model is not hit twice as hard."""

from typing import Final

SHARE: Final = 0.2  # of the requests
RESERVE: Final = 10.0  # retries to begin with: more than a worker may fail before it is ejected
MAX_BALANCE: Final = 100.0  # retries saved up at most


class RetryBudget:
    """Of one model: every request earns a share of a retry. What fails for one model costs no other its retries."""

    def __init__(self) -> None:
        self._balance = RESERVE

    def earn(self) -> None:
        """A request has been sent for the first time."""
        self._balance = min(self._balance + SHARE, MAX_BALANCE)

    def spend(self) -> bool:
        """Takes one retry, if there is one."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
