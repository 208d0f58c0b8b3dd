"""The audit log: who asked for which model when, and with what outcome; changes of API keys; with a further setting
also what was asked. One JSON object a line, in one file a day below GATEWAY_STATE_DIR. It never holds keys or headers.

Requests never wait for it: if it cannot be written, lines are dropped and counted, the log says so once, and requests
go on. A line tells of the gap once writing is possible again."""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.api.errors import ConfigError
from gateway.body.excerpt import excerpt_of
from gateway.config.api_keys import ApiKey
from gateway.config.key_changes import Keys, changes
from gateway.config.settings import Settings
from gateway.telemetry.claim import Claim
from gateway.telemetry.daily_files import DailyFiles
from gateway.telemetry.log_writer import LogWriter
from gateway.telemetry.logs import EventLog, dropped_line

LOGGER: Final = "audit"
MAX_BYTES: Final = 16 * 1024 * 1024  # of lines that wait for the disk
MAX_WORD: Final = 256  # characters of a name that a client may have made up
SWEEP_S: Final = 3600.0  # between two looks for files that are too old
MAX_JUMP_S: Final = 3600.0  # of the clock since the last look; after a larger one nothing is deleted at once


class Disk:
    """Appends lines to the day's file, and tells when that begins to fail and when it works again, each once.
    tell: called in the writing thread with the error, or with None."""

    def __init__(self, append: Callable[[bytes], None], tell: Callable[[OSError | None], object]) -> None:
        self._append = append
        self._tell = tell
        self._fails = False

    def write(self, lines: bytes) -> None:
        """Append `lines`. Raises OSError, by which `LogWriter` counts them."""
        try:
            self._append(lines)
        except OSError as error:
            if not self._fails:
                self._fails = True
                self._tell(error)
            raise
        if self._fails:
            self._fails = False
            self._tell(None)


class AuditTrail:
    """Writes the audit log of one process. claim: to write of the key file, which every process reads; log: the
    gateway's own, which is told of trouble; prompts: whether bodies are written too. Its methods are called in the
    event loop and never block."""

    def __init__(
        self,
        files: DailyFiles,
        claim: Claim,
        log: EventLog,
        loop: asyncio.AbstractEventLoop,
        *,
        prompts: bool,
    ) -> None:
        self._claim = claim
        self._files = files
        self._log = log
        self._loop = loop
        self._prompts = prompts
        disk = Disk(files.append, self._tell)
        self._out = LogWriter(disk.write, partial(dropped_line, logger=LOGGER), MAX_BYTES)
        self._lines = EventLog(self._out, LOGGER)

    @property
    def dropped(self) -> int:
        """Return how many lines could not be written since the start, for the metrics."""
        return self._out.dropped

    def request(self, **facts: object) -> None:
        """Write that a request has ended, as `ProxyHandler` says. Called once for each, refused ones included."""
        self._lines.request(self._loop, **facts)

    def prompt(self, id: bytes, sent_id: bytes, key: ApiKey, body: bytes, *, form: bool) -> None:
        """Write what a request asks, if prompts are wanted: its body as the client sent it, decoded, with media
        replaced by their size, and cut off. form: it is a form, of which only the size is written."""
        if self._prompts and body:
            self._lines.info(
                "prompt", id=id.decode(), sent_id=sent_id.decode(), key=key.name or None,
                body=None if form else excerpt_of(body), body_bytes=len(body),
            )  # fmt: skip

    def key_changes(self, before: Keys, after: Keys) -> None:
        """Write what a new content of the key file has changed, if no other process does."""
        if self._claim.is_ours():
            for change in changes(before, after):
                self._lines.info("key_changed", key=change.name, change=change.what, rights=change.rights)

    async def keep(self) -> None:
        """Delete files that are too old, at the start and every hour, until cancelled; `serve` runs this as a task.
        Nothing is deleted by a clock that has just jumped: it may be set right until the next look."""
        lead = wall_lead()
        while True:
            before, lead = lead, wall_lead()
            if abs(lead - before) < MAX_JUMP_S:
                await self._sweep()
            await asyncio.sleep(SWEEP_S)

    async def _sweep(self) -> None:
        """Delete files that are too old, in a thread, and log which, or why that failed."""
        try:
            for name in await asyncio.to_thread(self._files.sweep):
                self._log.info("audit_deleted", file=name)
        except OSError as error:
            self._log.error("audit_not_deleted", message=f"{error}: files of the audit log stay too long")

    def close(self) -> None:
        """Write what waits, at the end of the process."""
        self._lines.close()

    def _tell(self, error: OSError | None) -> None:
        """Have the event loop log trouble: the writing thread calls this."""
        self._loop.call_soon_threadsafe(self._report, error)

    def _report(self, error: OSError | None) -> None:
        """Log that the audit log cannot be written, or can be again."""
        if error is None:
            self._log.info("audit_written_again", dropped=self.dropped)
        else:
            why = f"{error}: requests go on, and are not in the audit log; make room, or see who owns the folder"
            self._log.error("audit_unwritable", message=why)


def audit_of(settings: Settings, log: EventLog, loop: asyncio.AbstractEventLoop) -> AuditTrail | None:
    """Return the audit trail that the settings ask for, or None. Raises ConfigError if it could not be written."""
    if settings.audit == "off":
        return None
    folder = settings.state_dir / "audit"
    files = DailyFiles(folder, settings.audit_days)
    try:
        files.prepare()
    except OSError as error:
        raise ConfigError(
            f"GATEWAY_AUDIT=on, but the audit log cannot be written: {error}. Make that folder one of this user's (uid "
            f"{os.getuid()}), or set GATEWAY_AUDIT=off"
        ) from error
    return AuditTrail(files, Claim(folder / "keys.lock"), log, loop, prompts=settings.audit_prompts)


def wall_lead() -> float:
    """Return by how much the wall clock is before the clock that never jumps: it changes only when the first jumps."""
    return time.time() - time.monotonic()


def word_of(text: str) -> str:
    """Return a client's word as the audit log may have it: not too long, and without half a surrogate pair, which no
    UTF-8 has."""
    return text[:MAX_WORD].encode(errors="replace").decode()
