"""Every way a bump can end without a proven pin, each with its exit code. The text of each is the one line to print.

    BumpError
    ├── RequestError    2  not one 40-digit COMMIT, and not one VERSION either
    ├── RecipeError     3  no such slug, or its card or Dockerfile cannot be edited
    ├── TooOldError     4  below the card's `vllm_minimum`
    ├── NoWheelError    5  the index answers and has no such wheel
    ├── HashError       6  the bytes are not those the index declares
    ├── WheelError      7  the wheel's name or contents do not fit the card
    ├── NoAnswerError   8  no index answers
    └── NoLockError     9  pinned, but what that vLLM needs is not locked yet

Nothing is written before 9. scripts/bump adds 10: pinned, and a proof failed.
"""

from typing import ClassVar


class BumpError(Exception):
    """The bump ends here; unless the kind says otherwise, card and Dockerfile are as they were."""

    exit_code: ClassVar[int]


class RequestError(BumpError):
    """What was asked for makes no sense."""

    exit_code = 2


class RecipeError(BumpError):
    """The slug's own files do not allow it."""

    exit_code = 3


class TooOldError(BumpError):
    """The card sets a minimum, for security's sake."""

    exit_code = 4


class NoWheelError(BumpError):
    """An index answered: it has no such wheel."""

    exit_code = 5


class HashError(BumpError):
    """The download is not what the index says it is."""

    exit_code = 6


class WheelError(BumpError):
    """The wheel is another one, or needs another torch."""

    exit_code = 7


class NoAnswerError(BumpError):
    """The network, or the index, failed; the same command may work later."""

    exit_code = 8


class NoLockError(BumpError):
    """The pin is written; the image cannot be built before the lock is made."""

    exit_code = 9
