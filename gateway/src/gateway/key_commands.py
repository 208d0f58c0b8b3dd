"""`python -m gateway keys ...`: make, list, replace and revoke API keys. The key file changes only if the gateway would
take what comes of it, which a running one then does by itself."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gateway.api.errors import ConfigError
from gateway.config import key_edit, key_file
from gateway.config.api_keys import Limits, Standing, hash_key, moment, new_key
from gateway.config.catalog import load_catalog
from gateway.config.key_file import Entry
from gateway.config.model_options import Models, load_models
from gateway.config.settings import Settings

LIMITS = tuple(asdict(Limits()))
COLUMNS = (
    *("NAME", "STATE", "MODELS", "LIMITS", "PRIORITY", "WEIGHT"),
    *("ADMIN", "NOT BEFORE", "EXPIRES", "DIGESTS"),
)
NAME_WIDTH = 64  # characters of a name that are listed
Edit = Callable[[str, Sequence[Entry]], tuple[str, Entry]]  # the new text, and what its key must then be


def main(words: Sequence[str], settings: Settings) -> int:
    """Run one command on the key file that `--file` or the settings name; return the exit code. Raises ConfigError."""
    chosen = parser().parse_args(words)
    if "name" in chosen and not chosen.name:
        raise ConfigError("whose key? NAME=... says it")
    path = chosen.file or settings.api_keys_file
    if path is None:
        raise ConfigError(
            "there is no key file: set GATEWAY_API_KEYS_FILE, in .env, to where it is or shall be"
        )
    chosen.run(chosen, path, load_models(settings, load_catalog(settings.cards_dir)))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the words. An empty value is none, since make passes on what is not set."""
    whole = argparse.ArgumentParser(
        prog="python -m gateway keys", description="API keys and what they may do"
    )
    whole.add_argument("--file", type=Path, help="the key file; else GATEWAY_API_KEYS_FILE")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="list all keys").set_defaults(run=show)
    adding = named_command(
        commands, "add", add, "make a key, print it once, write its hash and rights into the file"
    )
    adding.add_argument(
        "--models", default="", help="models and aliases, with spaces or commas between; else all"
    )
    for limit in LIMITS:
        adding.add_argument(f"--{limit.replace('_', '-')}", type=amount, help="a whole number; else no limit")
    adding.add_argument("--priority", default="", help="interactive, normal (the default) or bulk")
    adding.add_argument("--weight", type=amount, help="its share beside other keys of its priority; else 1")
    adding.add_argument(
        "--not-before", default="", help="the first day (UTC) on which it is valid, or a time"
    )
    adding.add_argument("--expires", default="", help="the last day (UTC) on which it is valid, or a time")
    adding.add_argument("--admin", choices=["", "0", "1"], default="", help="1: it may administer")
    named_command(commands, "rotate", rotate, "make another key for a name, beside the one that it has")
    named_command(commands, "revoke", revoke, "take the keys of a name back")
    return whole


def named_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", word: str, run: object, what: str
) -> argparse.ArgumentParser:
    """Add a command that takes the name of a key."""
    command = commands.add_parser(word, help=what)
    command.set_defaults(run=run)
    command.add_argument("name")
    return command


def amount(text: str) -> int | None:
    """Return the number of a limit; None for an empty text. Raises what argparse tells as an error."""
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


# the commands


def add(chosen: argparse.Namespace, path: Path, models: Models) -> None:
    """Make a key with the chosen rights, and print it."""
    key = new_key()

    def edit(text: str, entries: Sequence[Entry]) -> tuple[str, Entry]:
        if any(entry.key.name == chosen.name for entry in entries):
            raise ConfigError(
                f"{path}: {chosen.name} is there already: take another name, or make key-rotate"
            )
        if entries:
            check_form(text, path)
        fields = dict(rights(chosen, key))
        alone = key_edit.with_entry("", chosen.name, fields)
        made = named(key_file.parse(alone, path, models), chosen.name, path)
        if made.key.standing(time.time()) is Standing.EXPIRED:
            raise ConfigError(f"EXPIRES={chosen.expires} is past: the key would never be valid")
        return key_edit.with_entry(text, chosen.name, fields), made

    change(chosen.name, path, models, edit)
    tell(key, f"{chosen.name}: this key is shown only now; its hash and rights are in {path}")


def rotate(chosen: argparse.Namespace, path: Path, models: Models) -> None:
    """Make another key for a name, and print it; the one before works until the next time."""
    key = new_key()

    def edit(text: str, entries: Sequence[Entry]) -> tuple[str, Entry]:
        check_form(text, path)
        found, digest = named(entries, chosen.name, path), hash_key(key.encode())
        standing = found.key.standing(time.time())
        if standing is Standing.REVOKED:
            raise ConfigError(f"{path}: {chosen.name} is revoked: make a key of another name")
        if standing is Standing.EXPIRED:
            raise ConfigError(
                f"{path}: {chosen.name} is expired, and so would be another key: set a later `expires` there first"
            )
        text = key_edit.with_digest(text, chosen.name, digest)
        return text, replace(found, digests=(digest, found.digests[0]))

    change(chosen.name, path, models, edit)
    tell(
        key,
        f"{chosen.name}: this key is shown only now; the one before it works until the next make key-rotate",
    )


def revoke(chosen: argparse.Namespace, path: Path, models: Models) -> None:
    """Take a name's keys back. Its entry stays: its holder is told, and nobody else gets the name by accident."""

    def edit(text: str, entries: Sequence[Entry]) -> tuple[str, Entry]:
        check_form(text, path)
        found, when = named(entries, chosen.name, path), moment(time.time())
        if found.key.revoked is not None:
            raise ConfigError(f"{path}: {chosen.name} is revoked already")
        revoked = replace(found.key, revoked=key_file.begin_of(when))
        return key_edit.with_revoked(text, chosen.name, when), replace(found, key=revoked)

    change(chosen.name, path, models, edit)
    sys.stderr.write(f"{chosen.name}: revoked; a running gateway refuses it within 5 s\n")


def show(_: argparse.Namespace, path: Path, models: Models) -> None:
    """Print a table of all keys."""
    rows = [COLUMNS, *(row(entry, time.time()) for entry in key_file.read(path, models))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


# their parts


def change(name: str, path: Path, models: Models, edit: Edit) -> None:
    """Write what `edit` makes of the key file. What it refuses where there is no file makes none."""
    if not os.path.exists(path):  # `Path.exists` raises where the directory may not be read
        changed("", name, path, models, edit)
    with key_edit.locked(path) as file:
        file.write(changed(file.text, name, path, models, edit))


def changed(text: str, name: str, path: Path, models: Models, edit: Edit) -> str:
    """Return what `edit` makes of a key file's text, if it can be read again, the key `name` is what was meant, and
    all others are as before. Raises ConfigError."""
    before = key_file.parse(text, path, models)
    text, meant = edit(text, before)
    after = key_file.parse(text, path, models)
    if by_name(after) != by_name(before) | {name: meant}:
        raise ConfigError(f"{path} is written in a way that this command cannot change: edit it by hand")
    return text


def by_name(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the keys of a file in the YAML form, in which each has a name of its own."""
    return {entry.key.name: entry for entry in entries}


def named(entries: Sequence[Entry], name: str, path: Path) -> Entry:
    """Return the key of a name. Raises ConfigError."""
    for entry in entries:
        if entry.key.name == name:
            return entry
    known = ", ".join(entry.key.name for entry in entries) or "none"
    raise ConfigError(f"{path} has no key named {name!r:.80}; it has {known}")


def check_form(text: str, path: Path) -> None:
    """Raise ConfigError for a file of the form that has no rights."""
    if text.strip() and not key_file.is_yaml(text):
        raise ConfigError(
            f"{path} has one key a line, which are changed by hand: for this command write it as `keys:`, as "
            "docs/configuration.md shows"
        )


def rights(chosen: argparse.Namespace, key: str) -> Iterator[tuple[str, object]]:
    """Yield the fields of a new key's entry: those that were chosen."""
    yield "sha256", [hash_key(key.encode())]
    if models := re.findall(r"[^\s,]+", chosen.models):
        yield "models", models
    if limits := {limit: value for limit in LIMITS if (value := getattr(chosen, limit)) is not None}:
        yield "limits", limits
    for field in ("priority", "weight", "not_before", "expires"):
        if (value := getattr(chosen, field)) not in (None, ""):
            yield field, value
    if chosen.admin == "1":
        yield "admin", True


def row(entry: Entry, now: float) -> tuple[str, ...]:
    """Return the cells of one key."""
    key = entry.key
    limits = [f"{limit}={value}" for limit, value in asdict(key.limits).items() if value is not None]
    return (
        printable(key.name),
        key.standing(now).value,
        "all" if key.models is None else " ".join(sorted(key.models)),
        " ".join(limits) or "none",
        key.priority.label,
        str(key.weight),
        "yes" if key.admin else "no",
        "-" if key.not_before is None else moment(key.not_before),
        "-" if key.expires is None else moment(key.expires),
        " ".join(digest[:8] for digest in entry.digests),
    )


def printable(name: str) -> str:
    """Return a name for the table. One of the form without rights may be of any length, and have characters that would
    move a terminal's cursor."""
    cut = name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 3]}..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def tell(key: str, what: str) -> None:
    """Print a new key on standard output, and all else on standard error, so that a program may take the key."""
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()
    sys.stdout.write(f"{key}\n")
