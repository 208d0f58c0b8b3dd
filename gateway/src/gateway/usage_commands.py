"""`python -m gateway usage`: what the keys have used, from the record on disk, as a table, CSV or JSON. It reads while
a gateway writes, and when none runs."""

import argparse
import csv
import json
import sqlite3
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from gateway.api.errors import ConfigError
from gateway.config.settings import Settings
from gateway.usage.store import COUNTS, FILE, GROUPS, WrongVersion, totals

NUMBERS = ("requests", "refused", "tokens in", "cached", "tokens out")
FIRST, LAST = date(1970, 1, 1), date(9999, 1, 1)
Rows = list[tuple[object, ...]]


def main(words: Sequence[str], settings: Settings) -> int:
    """Run the command; return the exit code: 1 if there is nothing to tell. Raises ConfigError."""
    chosen = parser().parse_args(words)
    by, since, until = groups(chosen.by), day(chosen.since, "SINCE"), day(chosen.until, "UNTIL")
    if since and until and until < since:
        raise ConfigError(f"UNTIL={until} is before SINCE={since}: swap them")
    begin, end = since or FIRST, min(until, LAST) + timedelta(1) if until else LAST
    path = settings.state_dir / FILE
    try:
        rows = totals(path, by, seconds(begin), seconds(end))
    except FileNotFoundError:
        return nothing(f"no usage was recorded yet: there is no {path}. A gateway with a key file writes it")
    except WrongVersion as error:
        raise ConfigError(str(error)) from error
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if chosen.format == "json":
        write_json(by, rows)
    elif chosen.format == "csv":
        write_csv(by, rows)
    elif not rows:
        return nothing("no usage was recorded in this time")
    else:
        write_table(by, rows)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the words. An empty value is none, since make passes on what is not set."""
    whole = argparse.ArgumentParser(prog="python -m gateway usage", description="What the API keys have used")
    whole.add_argument(
        "--format", default="table", type=lambda text: text or "table", choices=["table", "csv", "json"]
    )
    whole.add_argument("--since", default="", help="the first day, such as 2026-11-01 (UTC)")
    whole.add_argument("--until", default="", help="the last day")
    whole.add_argument(
        "--by", default="", help="some of key, model and day, with commas between; else key,model"
    )
    return whole


def groups(text: str) -> list[str]:
    """Return what to group by. Raises ConfigError."""
    by = text.split(",") if text else ["key", "model"]
    if len(set(by)) != len(by) or not set(by) <= GROUPS.keys():
        raise ConfigError(f"BY={text} must be some of {', '.join(GROUPS)}, with commas between and each once")
    return by


def day(text: str, variable: str) -> date | None:
    """Return a day, None for an empty text. Raises ConfigError."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConfigError(f"{variable}={text} is no day: write it as 2026-11-01") from error


def seconds(begin: date) -> int:
    """Return the Unix seconds at which a day begins (UTC)."""
    return int(datetime(begin.year, begin.month, begin.day, tzinfo=UTC).timestamp())


def nothing(why: str) -> int:
    """Say why there is nothing to tell; return the exit code."""
    sys.stderr.write(f"usage: {why}\n")
    return 1


def write_json(by: Sequence[str], rows: Rows) -> None:
    """Write a list of objects."""
    json.dump([dict(zip([*by, *COUNTS], row, strict=True)) for row in rows], sys.stdout, indent=1)
    sys.stdout.write("\n")


def write_csv(by: Sequence[str], rows: Rows) -> None:
    """Write a line with the names of the columns, then one for each row."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*by, *COUNTS])
    writer.writerows(rows)


def write_table(by: Sequence[str], rows: Rows) -> None:
    """Write a table, with the sum of all rows at its end."""
    words = len(by)
    total = [sum(int(str(row[at])) for row in rows) for at in range(words, words + len(COUNTS))]
    cells = [
        [name.upper() for name in (*by, *NUMBERS)],
        *([*map(printable, row[:words]), *(f"{number:,}" for number in row[words:])] for row in rows),
        ["total", *[""] * (words - 1), *(f"{number:,}" for number in total)],
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        named = [cell.ljust(width) for cell, width in zip(line[:words], widths, strict=False)]
        counted = [cell.rjust(width) for cell, width in zip(line[words:], widths[words:], strict=True)]
        sys.stdout.write("  ".join([*named, *counted]).rstrip() + "\n")


def printable(value: object) -> str:
    """Return a name for the table: one of a key file without rights may have what would move a terminal's cursor."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(value)
    )
