"""What each API key has used, in memory that all processes of the gateway share: a row for each key's name.

A process locks a row while it reads and changes it, by fcntl.lockf, which the kernel lets go when a process dies. The
next one that locks the row sees by a mark that the change was cut short, and adds the slots up again. What a process
holds (requests in flight, tokens reserved for the month) is in columns of its own, which are cleared when it is lost.
One process alone needs no lock: its event loop does one thing at a time."""

import fcntl
import hashlib
import mmap
import os
import struct
from typing import Final

from gateway.api.errors import Overloaded
from gateway.limits.window import Shape, Window

ROWS: Final = 4096  # keys with limits; pages of rows that nobody uses take no memory
WORD: Final = 8
DIGEST: Final = struct.Struct("<qq")
# Words of a row: when it was last used, whether it is being changed, the month and its tokens, two columns of each
# process, and the windows.
LAST: Final = 0
MARK: Final = 1
MONTH: Final = 2
MONTH_USED: Final = 3
COLUMNS: Final = 4
IDLE_MS: Final = 3600 * 1000  # after which a row may be given to another key if the table is full
TABLE_LOCK: Final = 0  # the byte of the memory that is locked for the table
FIRST_ROW_LOCK: Final = 1  # and for the first row
TOKENS_OF: Final = 1  # of a process's two columns: 0 requests in flight, 1 tokens reserved for the month


class Row:
    """What one key has used. Only between `Table.enter` and `Table.leave` may it be read or changed. process: this
    process's number."""

    def __init__(
        self, number: int, words: memoryview, base: int, digest: tuple[int, int], processes: int,
        process: int, shape: Shape,
    ) -> None:  # fmt: skip
        self.number = number
        self.digest = digest
        self._words = words
        self._base = base
        self._first = base + COLUMNS
        self._end = self._first + 2 * processes
        self._mine = self._first + 2 * process
        self.requests = Window(words, self._end, shape)
        self.tokens_in = Window(words, self._end + shape.words, shape)
        self.tokens_out = Window(words, self._end + 2 * shape.words, shape)

    def in_flight(self) -> int:
        """Return how many requests all processes have in flight."""
        words = self._words
        if self._end - self._first == 2:
            alone: int = words[self._first]
            return alone
        return sum(words[self._first : self._end : 2])

    def hold(self, tokens: int) -> None:
        """Count one more request of this process, which reserves so many tokens of the month."""
        self._words[self._mine + TOKENS_OF] += tokens  # first: if it does not fit in a word, nothing is held
        self._words[self._mine] += 1

    def let_go(self, tokens: int) -> None:
        """Count one request of this process less, and give back what it had reserved of the month."""
        self._words[self._mine] -= 1
        self._words[self._mine + TOKENS_OF] -= tokens

    def month_used(self, month: int) -> int:
        """Return the tokens used in `month`, numbered on; a later one begins at 0, an earlier one is ignored: a clock
        that is set back forgives nothing."""
        words, base = self._words, self._base
        if month > words[base + MONTH]:
            words[base + MONTH_USED] = 0
            words[base + MONTH] = month
        used: int = words[base + MONTH_USED]
        return used

    def month_reserved(self) -> int:
        """Return the tokens of the month that requests in flight have reserved, in all processes."""
        words = self._words
        if self._end - self._first == 2:
            alone: int = words[self._first + TOKENS_OF]
            return alone
        return sum(words[self._first + TOKENS_OF : self._end : 2])

    def add_to_month(self, tokens: int) -> None:
        """Count tokens that were used in the row's month."""
        self._words[self._base + MONTH_USED] += tokens

    def seed_month(self, tokens: int) -> None:
        """Let the month's tokens be at least so many, as the usage record tells."""
        at = self._base + MONTH_USED
        self._words[at] = max(self._words[at], tokens)

    def note_use(self, now_ms: int) -> None:
        """Note that the row is used, so that it goes to no other key for an hour."""
        self._words[self._base + LAST] = now_ms

    def begin(self) -> None:
        """Mark the row as being changed. If it was so already, the process that did it was killed: add up again."""
        words, base = self._words, self._base
        if words[base + MARK]:
            for window in (self.requests, self.tokens_in, self.tokens_out):
                window.recount()
        words[base + MARK] = 1

    def end(self) -> None:
        """Take the mark away."""
        self._words[self._base + MARK] = 0

    def is_idle(self, now_ms: int) -> bool:
        """Return whether the row may be given to another key: nothing has happened in it for IDLE_MS."""
        return now_ms - self._words[self._base + LAST] > IDLE_MS and self.in_flight() == 0


class Table:
    """The rows of all keys. fd: of the memory that the processes share, None if there is but one; processes: how many;
    process: which of them this is. The parent of several has a table too, but counts nothing in it. identity: a name
    that no other gateway has, the same in all processes."""

    def __init__(
        self, fd: int | None = None, processes: int = 1, process: int = 0, shape: Shape | None = None,
        rows: int = ROWS,
    ) -> None:  # fmt: skip
        self.fd = fd
        self.shape = shape or Shape()
        self._processes = processes
        self._process = process
        self._capacity = rows
        self._stride = COLUMNS + 2 * processes + 3 * self.shape.words
        end = 2 * rows + rows * self._stride
        size = WORD * (end + 2)
        if fd is not None and os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        memory = mmap.mmap(-1 if fd is None else fd, size)
        self._words = memoryview(memory).cast("q")
        if not self._words[end]:  # nobody has used this memory: the parent of several processes is the first
            self._words[end], self._words[end + 1] = DIGEST.unpack(os.urandom(DIGEST.size))
        self.identity = bytes(memoryview(memory)[WORD * end : size]).hex()
        self._rows: dict[str, Row] = {}  # those that this process has found, by the key's name

    def enter(self, name: str, now_ms: int) -> Row:
        """Return the row of the key `name`, locked; a new one if it has none. `leave` must follow. Raises Overloaded if
        there is none free."""
        while True:
            row = self._rows.get(name)
            if row is None:
                row = self._rows[name] = self._find(name, now_ms)
            if self.fd is not None:
                self._lock(FIRST_ROW_LOCK + row.number)
            if self._words[2 * row.number] == row.digest[0]:
                if self.fd is not None:
                    row.begin()
                return row
            self._unlock(FIRST_ROW_LOCK + row.number)  # it was idle, and was given to another key
            del self._rows[name]

    def leave(self, row: Row) -> None:
        """Unlock a row."""
        if self.fd is not None:
            row.end()
            self._unlock(FIRST_ROW_LOCK + row.number)

    def names(self) -> list[str]:
        """Return the names of those keys whose rows this process has found."""
        return list(self._rows)

    def clear(self, process: int) -> None:
        """Give back what a process held that is no more. Its parent calls this when it has ended."""
        for number in range(self._capacity):
            if self._is_taken(number):
                at = self._base(number) + COLUMNS + 2 * process
                self._words[at] = self._words[at + TOKENS_OF] = 0

    def _find(self, name: str, now_ms: int) -> Row:
        """Return the row of a name, looked for from the place that its digest gives, or take a free one for it; if none
        is free, one that is idle. Raises Overloaded."""
        raw = hashlib.blake2b(name.encode(), digest_size=16).digest()
        first, second = DIGEST.unpack(raw)
        self._lock(TABLE_LOCK)
        try:
            idle: list[Row] = []
            for step in range(self._capacity):
                number = (first + step) % self._capacity
                row = self._row(number, (first, second))
                if self._words[2 * number] == first and self._words[2 * number + 1] == second:
                    return row
                if not self._is_taken(number):
                    idle = [row]
                    break
                if row.is_idle(now_ms):
                    idle.append(row)
            for row in idle:
                if self._give(row, now_ms):
                    return row
            raise Overloaded(
                f"More than {self._capacity} API keys with limits were used within an hour: try again later"
            )
        finally:
            self._unlock(TABLE_LOCK)

    def _give(self, row: Row, now_ms: int) -> bool:
        """Empty a row and write its digest, so that it is this key's from now on. Return False if it is not free any
        more: its key has come back since it was looked at."""
        self._lock(FIRST_ROW_LOCK + row.number)
        try:
            if self._is_taken(row.number) and not row.is_idle(now_ms):
                return False
            base, at = self._base(row.number), 2 * row.number
            self._words[base : base + self._stride] = memoryview(bytes(WORD * self._stride)).cast("q")
            self._words[at], self._words[at + 1] = row.digest
            return True
        finally:
            self._unlock(FIRST_ROW_LOCK + row.number)

    def _row(self, number: int, digest: tuple[int, int]) -> Row:
        base = self._base(number)
        return Row(number, self._words, base, digest, self._processes, self._process, self.shape)

    def _base(self, number: int) -> int:
        """Return the index of a row's first word; the digests of all rows come before."""
        return 2 * self._capacity + number * self._stride

    def _is_taken(self, number: int) -> bool:
        return bool(self._words[2 * number] or self._words[2 * number + 1])

    def _lock(self, byte: int) -> None:
        if self.fd is not None:
            fcntl.lockf(self.fd, fcntl.LOCK_EX, 1, byte)

    def _unlock(self, byte: int) -> None:
        if self.fd is not None:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, byte)


def shared_memory() -> int:
    """Return the descriptor of memory that the parent shares with its processes; a `Table` gives it its size."""
    return os.memfd_create("gateway-limits", 0)
