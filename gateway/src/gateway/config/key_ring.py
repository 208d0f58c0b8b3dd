"""The API keys in force: looked up for each request, read again when the key file changes."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.api.errors import ConfigError, InvalidApiKey
from gateway.config import key_file
from gateway.config.api_keys import (
    ANYONE,
    UNLIMITED,
    ApiKey,
    Priority,
    Standing,
    hash_key,
    offered,
    salt_from,
    why_refused,
    why_two,
    why_unknown,
)
from gateway.config.file_watch import FileWatch
from gateway.config.model_options import Models

MAX_LABELS: Final = 64  # names that metrics know in the life of a process; the keys of all others are OTHER


class KeyRing:
    """The accepted API keys, by digest. Without a key file every request passes, if the bind rule (settings.py) allows
    that. models: those that a key may be for. clock: Unix seconds; it may jump. salts: each key gets a salt of its own.
    classes: of the keys in the file, other than revoked ones; a new set whenever they may have changed."""

    def __init__(
        self, path: Path | None, models: Models, clock: Callable[[], float] = time.time, *, salts: bool = True
    ) -> None:
        self._path = path
        self._models = models
        self._clock = clock
        self._salts = salts
        self.classes: frozenset[Priority] = frozenset()
        self._keys: Mapping[str, ApiKey] = {}
        self._edition = 0  # counts the readings of the file that counted
        self._labels: set[str] = set()
        self._watch: FileWatch | None = None
        if path is not None:
            self._watch = FileWatch(path)
            entries = key_file.read(path, models)
            if all(entry.key.revoked is not None for entry in entries):
                raise ConfigError(f"{path} holds no key: nobody could use the gateway; make key writes one")
            self._take(entries)

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return self._path is None

    @property
    def in_force(self) -> Mapping[str, ApiKey]:
        """The keys by digest. A new content of the file makes a new mapping, so that two can be compared."""
        return self._keys

    def find(self, headers: Iterable[tuple[bytes, bytes]]) -> ApiKey:
        """Return the accepted key that a request carries, or ANYONE if none is needed. Raises InvalidApiKey. The time
        that this takes tells nothing of a key, since digests are looked up, and nobody can choose a digest."""
        if self._path is None:
            return ANYONE
        why, keys = None, offered(headers)
        found: ApiKey | None = None
        for one in keys:
            key = self._keys.get(hash_key(one))
            if key is None:
                continue
            standing = key.standing(self._clock())
            if standing is not Standing.VALID:
                why = why or why_refused(key, standing)
            elif found is not None and found.name != key.name:  # whose rights, limits and usage are meant?
                raise InvalidApiKey(why_two(found.name, key.name))
            else:
                found = found or key
        if found is None:
            raise InvalidApiKey(why or why_unknown(keys, headers))
        return found

    def renewed(self, key: ApiKey, headers: Iterable[tuple[bytes, bytes]]) -> ApiKey:
        """Return the key that a request has now which was accepted with `key` a while ago: the same, unless the file
        was read again meanwhile. Raises InvalidApiKey if it was revoked or has expired since."""
        if key.edition == self._edition and key.standing(self._clock()) is Standing.VALID:
            return key
        return self.find(headers)

    def counted(self) -> list[ApiKey]:
        """Return the keys with limits that metrics know by their own names, each once though it has two digests."""
        keys = {key.name: key for key in self._keys.values() if key.label == key.name}
        return [key for key in keys.values() if key.limits is not UNLIMITED and key.revoked is None]

    def monthly(self) -> set[str]:
        """Return the names of all keys with a monthly limit."""
        return {key.name for key in self._keys.values() if key.limits.monthly_tokens is not None}

    def has_changed(self) -> bool:
        """Return whether to `read` now (`FileWatch.has_changed`); never without a key file."""
        return self._watch is not None and self._watch.has_changed()

    def read(self) -> bool:
        """Read the file as `has_changed` saw it, and put its keys in force. Return False if it has changed since.

        Raises ConfigError; the keys read before then stay. Parsing a large file takes a while, so a thread may do
        this."""
        assert self._watch is not None
        entries = self._watch.read(self._entries)
        if entries is None:
            return False
        self._take(entries)
        return True

    def is_news(self, fault: str) -> bool:
        """Return whether to log why a `read` failed (`FileWatch.is_news`)."""
        return self._watch is not None and self._watch.is_news(fault)

    def _entries(self) -> tuple[key_file.Entry, ...]:
        """Return the keys of the file at run time, when they may be none if the file says so. Raises ConfigError."""
        assert self._path is not None
        text = key_file.text_of(self._path)
        entries = key_file.parse(text, self._path, self._models)
        if not entries and not key_file.says_none(text):
            raise ConfigError(
                f"{self._path} has no entry, as a file that was cut off: to take every key back, write `keys: {{}}`"
            )
        return entries

    def _take(self, entries: Iterable[key_file.Entry]) -> None:
        """Put the keys of the file in force."""
        keys: dict[str, ApiKey] = {}
        edition = self._edition + 1
        for entry in entries:
            salt = salt_of(entry) if self._salts else b""
            key = replace(entry.key, label=self._label(entry.key), edition=edition, salt=salt)
            keys |= dict.fromkeys(entry.digests, key)
        self._keys, self._edition = keys, edition
        self.classes = frozenset([key.priority for key in keys.values() if key.revoked is None])

    def _label(self, key: ApiKey) -> str:
        """Return the label of a key's name in metrics: a name keeps its own, so that no counter jumps to another, and a
        revoked key, which has no requests, takes none from others."""
        if key.revoked is None and len(self._labels) < MAX_LABELS:
            self._labels.add(key.name)
        return key.name if key.name in self._labels else key_file.OTHER


def salt_of(entry: key_file.Entry) -> bytes:
    """Return a key's salt: nobody guesses it who does not have the key itself, and all gateways with this file make the
    same. It is of the oldest digest, so that the cache outlives a rotation until the key before is dropped."""
    return salt_from(bytes.fromhex(entry.digests[-1]), b"cache_salt")
