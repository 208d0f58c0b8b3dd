"""The API keys in force: looked up for each request, read again when the key file changes."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.api.errors import ConfigError, InvalidApiKey
from gateway.config import key_file
from gateway.config.api_keys import ANYONE, ApiKey, Standing, hash_key, offered, why_refused, why_unknown
from gateway.config.model_options import Models

MAX_LABELS: Final = 64  # names that metrics know in the life of a process; the keys of all others are OTHER
Stamp = tuple[int, int, int, int]
MISSING: Final = (0, 0, 0, 0)


class KeyRing:
    """The accepted API keys, by digest. Without a key file every request passes, if the bind rule (settings.py) allows
    that. models: those that a key may be for. clock: Unix seconds; it may jump."""

    def __init__(self, path: Path | None, models: Models, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._models = models
        self._clock = clock
        self._keys: Mapping[str, ApiKey] = {}
        self._labels: set[str] = set()
        self._seen: Stamp = MISSING  # at the last look
        self._read: Stamp = MISSING  # when it was last read, well or not
        if path is not None:
            self._seen = stamp_of(path)
            self.read()
            if all(key.revoked is not None for key in self._keys.values()):
                raise ConfigError(f"{path} holds no key: nobody could use the gateway; make key writes one")

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
        """Return whether to `read` now: the file is not what was last read, and is as it was at the last look, a second
        ago. One that is being written is left alone: half of it might be valid, and lack somebody's key."""
        if self._path is None:
            return False
        before, self._seen = self._seen, stamp_of(self._path)
        return self._seen == before and self._seen != self._read

    def read(self) -> None:
        """Read the file, and put its keys in force. Raises ConfigError; the keys read before then stay, and the file is
        not read again until it changes. Parsing a large file takes a while, so a thread may do this."""
        assert self._path is not None
        self._read = self._seen
        entries = key_file.read(self._path, self._models)
        self._keys = {
            digest: replace(entry.key, label=self._label(entry.key.name))
            for entry in entries
            for digest in entry.digests
        }

    def _label(self, name: str) -> str:
        """Return the label of a key's name in metrics. A name keeps its own, so that no counter jumps to another."""
        if name not in self._labels and len(self._labels) < MAX_LABELS:
            self._labels.add(name)
        return name if name in self._labels else key_file.OTHER


def stamp_of(path: Path) -> Stamp:
    """Return what tells one content of the key file from another: time of change, size, file, and whether its name is
    still its own. MISSING if it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return MISSING
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_nlink
