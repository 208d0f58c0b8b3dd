"""Limit retries to a share of all requests, so that a failing model does not get twice its load. Pure."""

from typing import Final

SHARE: Final = 0.2  # retries that each request earns: a failing model gets at most a fifth more
RESERVE: Final = 10.0  # retries to begin with: more than a worker may fail before it is ejected
MAX_BALANCE: Final = 100.0  # retries saved up at most, so that a long good time allows no storm of retries


class RetryBudget:
    """The retries that one model has left. Each model has its own, so that a failing one does not use up another's."""

    def __init__(self) -> None:
        self._balance = RESERVE

    def earn(self) -> None:
        """Add a share of a retry. Called when a request is sent for the first time, by `ProxyHandler._send`."""
        self._balance = min(self._balance + SHARE, MAX_BALANCE)

    def spend(self) -> bool:
        """Take one retry and return True, or False if none is left: then only a stale connection's retry may go on."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
