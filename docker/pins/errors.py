"""Every way a bump can end without a proven pin, each with its exit code. The text of each is the one line to print.

Nothing is written before exit code 9. scripts/bump adds 10: pinned, and a proof failed.
"""

from typing import ClassVar


class BumpError(Exception):
    """The bump ends here; unless the kind says otherwise, card and Dockerfile are as they were."""

    exit_code: ClassVar[int]


class RequestError(BumpError):
    """Not one 40-digit COMMIT, and not one VERSION either."""

    exit_code = 2


class RecipeError(BumpError):
    """There is no such slug, or its card or Dockerfile cannot be edited."""

    exit_code = 3


class TooOldError(BumpError):
    """The version is below the card's `vllm_minimum`, which is there for security's sake."""

    exit_code = 4


class NoWheelError(BumpError):
    """The index answers and has no such wheel."""

    exit_code = 5


class HashError(BumpError):
    """The bytes are not those that the index declares."""

    exit_code = 6


class WheelError(BumpError):
    """The wheel's name or contents do not fit the card, or it needs another torch."""

    exit_code = 7


class NoAnswerError(BumpError):
    """No index answers; the same command may work later."""

    exit_code = 8


class NoLockError(BumpError):
    """The pin is written, but what that vLLM needs is not locked yet, so that its image cannot be built."""

    exit_code = 9
