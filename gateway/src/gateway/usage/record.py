"""What the requests of a key and model came to, and the sums that a process keeps until they are written. Pure."""

from collections.abc import Iterator
from typing import Final

import orjson

ROWS_A_MESSAGE: Final = 256  # so that a message fits into a socket's buffer
Row = tuple[str, str, int, int, int, int, int]  # key, model, then the counts of `Use`


class Use:
    """A count. requests: those that were sent to a worker; refused: those that were not; tokens_in: of prompts, of
    which `cached` came from a cache; tokens_out: of completions."""

    def __init__(self) -> None:
        self.requests = 0
        self.refused = 0
        self.tokens_in = 0
        self.cached = 0
        self.tokens_out = 0


class Sums:
    """Counts by key and model. There are as many as the key file has names and the cards have models."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str], Use] = {}

    def __len__(self) -> int:
        return len(self._uses)

    def of(self, key: str, model: str) -> Use:
        """Return the count of a key and model, which begins with zeros."""
        use = self._uses.get((key, model))
        if use is None:
            use = self._uses[key, model] = Use()
        return use

    def add(self, row: Row) -> None:
        """Add what another process has counted, or what could not be written."""
        key, model, requests, refused, tokens_in, cached, tokens_out = row
        use = self.of(key, model)
        use.requests += requests
        use.refused += refused
        use.tokens_in += tokens_in
        use.cached += cached
        use.tokens_out += tokens_out

    def rows(self) -> list[Row]:
        """Return all counts."""
        return [
            (key, model, use.requests, use.refused, use.tokens_in, use.cached, use.tokens_out)
            for (key, model), use in self._uses.items()
        ]

    def take(self) -> list[Row]:
        """Return all counts, and begin again."""
        rows = self.rows()
        self._uses = {}
        return rows


def messages(rows: list[Row]) -> Iterator[tuple[bytes, list[Row]]]:
    """Yield rows as messages to another process, each with the rows that are in it."""
    for start in range(0, len(rows), ROWS_A_MESSAGE):
        part = rows[start : start + ROWS_A_MESSAGE]
        yield orjson.dumps(part), part


def rows_in(message: bytes) -> list[Row]:
    """Return the rows of a message."""
    return [tuple(row) for row in orjson.loads(message)]
