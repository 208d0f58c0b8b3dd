"""The API keys in force: looked up for each request, read again when the key file changes."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.api.errors import ConfigError, InvalidApiKey
from gateway.config import key_file
from gateway.config.api_keys import ANYONE, ApiKey, Standing, hash_key, offered, why_refused, why_unknown
from gateway.config.file_stamp import Stamp, stamp_of
from gateway.config.model_options import Models

MAX_LABELS: Final = 64  # names that metrics know in the life of a process; the keys of all others are OTHER


class KeyRing:
    """The accepted API keys, by digest. Without a key file every request passes, if the bind rule (settings.py) allows
    that. models: those that a key may be for. clock: Unix seconds; it may jump."""

    def __init__(self, path: Path | None, models: Models, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._models = models
        self._clock = clock
        self._keys: Mapping[str, ApiKey] = {}
        self._labels: set[str] = set()
        self._seen: Stamp = None  # at the last look
        self._judged: Stamp = None  # of the content that was last read whole, and taken or found wrong
        self._told: tuple[Stamp, str] | None = None  # the fault that is_news was last asked about
        if path is not None:
            self._seen = stamp_of(path)
            entries = key_file.read(path, models)
            if all(entry.key.revoked is not None for entry in entries):
                raise ConfigError(f"{path} holds no key: nobody could use the gateway; make key writes one")
            self._take(entries)
            self._judged = self._seen

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return self._path is None

    def find(self, headers: Iterable[tuple[bytes, bytes]]) -> ApiKey:
        """Return the accepted key that a request carries, or ANYONE if none is needed. Raises InvalidApiKey. The time
        that this takes tells nothing of a key, since digests are looked up, and nobody can choose a digest."""
        if self._path is None:
            return ANYONE
        why, keys = None, offered(headers)
        for one in keys:
            key = self._keys.get(hash_key(one))
            if key is not None:
                standing = key.standing(self._clock())
                if standing is Standing.VALID:
                    return key
                why = why or why_refused(key, standing)
        raise InvalidApiKey(why or why_unknown(keys, headers))

    def has_changed(self) -> bool:
        """Return whether to `read` now: the file is not what was last judged, and is as it was at the last look, a
        second ago. One that is being written is left alone: half of it might be valid, and lack somebody's key."""
        if self._path is None:
            return False
        before, self._seen = self._seen, stamp_of(self._path)
        return self._seen == before and self._seen != self._judged

    def read(self) -> bool:
        """Read the file as `has_changed` saw it, and put its keys in force. Return False if it has changed since.

        Raises ConfigError; the keys read before then stay. A file that is wrong is not read again until it changes; one
        that cannot be read is tried at each look. Parsing a large file takes a while, so a thread may do this."""
        assert self._path is not None
        seen = self._seen
        text = key_file.text_of(self._path)
        if stamp_of(self._path) != seen:
            return False
        try:
            entries = key_file.parse(text, self._path, self._models)
            if not entries and not key_file.says_none(text):
                raise ConfigError(
                    f"{self._path} has no entry, as a file that was cut off: to take every key back, write `keys: {{}}`"
                )
        except ConfigError:
            self._judged = seen
            raise
        self._take(entries)
        self._judged, self._told = seen, None
        return True

    def is_news(self, fault: str) -> bool:
        """Return whether to log why a `read` failed: not at each look, but again if the file has changed since."""
        before, self._told = self._told, (self._seen, fault)
        return self._told != before

    def _take(self, entries: Iterable[key_file.Entry]) -> None:
        """Put the keys of the file in force."""
        keys: dict[str, ApiKey] = {}
        for entry in entries:
            keys |= dict.fromkeys(entry.digests, replace(entry.key, label=self._label(entry.key)))
        self._keys = keys

    def _label(self, key: ApiKey) -> str:
        """Return the label of a key's name in metrics: a name keeps its own, so that no counter jumps to another, and a
        revoked key, which has no requests, takes none from others."""
        if key.revoked is None and len(self._labels) < MAX_LABELS:
            self._labels.add(key.name)
        return key.name if key.name in self._labels else key_file.OTHER
