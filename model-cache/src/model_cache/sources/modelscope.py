"""The hub, through the ModelScope SDK; no other module imports it. Importing this module imports the SDK, which reads
its settings from the environment once, at that moment: call ``settings.export_to_sdk`` first. `Hub` replaces private
names of it; what is said here of the SDK is so in modelscope_hub 0.5.1."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import requests
from modelscope_hub import HubApi, ProgressCallback, _download
from modelscope_hub.errors import (
    AuthenticationError,
    FileDownloadError,
    FileIntegrityError,
    HubError,
    NotExistError,
    PermissionDeniedError,
)

from model_cache.errors import AccessError, IntegrityError, JobError, RetryableError
from model_cache.manifest.listing import MAX_BYTES, ListedFile
from model_cache.manifest.manifest import ManifestFile
from model_cache.sources.proxies import cause
from model_cache.sources.rate_limit import RateLimit, TransferLimitError
from model_cache.sources.session import HttpOptions, RefusedError, Session
from model_cache.telemetry.progress import Progress

_MAX_WORKERS = 8  # files at a time
_CHUNK_BYTES = 256 << 10  # per read; the SDK's own setting is in megabytes, which add up over threads
# When several files fail for several reasons, the first of these is what the run reports.
_SEVERITY: tuple[type[JobError], ...] = (AccessError, IntegrityError, RetryableError)


class Hub:
    """One repository at one revision on the hub at *endpoint*. *options.on_retry* is called for each request or file
    that is tried again; *if_missing* is added to the error where the hub does not know the repository."""

    def __init__(
        self, endpoint: str, token: str | None, repo: str, revision: str,
        options: HttpOptions, rate_limit: RateLimit, if_missing: str = "",
    ) -> None:  # fmt: skip
        """Change the SDK's module and logger too, for the whole process: a run makes one `Hub`."""
        self._endpoint = self.name = endpoint
        self._repo = repo
        self._revision = revision
        self._rate_limit = rate_limit
        self._if_missing = f". {if_missing}" if if_missing else ""
        _download.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES  # type: ignore[attr-defined]
        _download.open = _open_no_link  # type: ignore[attr-defined]
        self._api = HubApi(endpoint=endpoint, token=token)
        self._session = self._api.legacy._read_session = _SdkSession(endpoint, options, rate_limit)
        log = logging.getLogger("modelscope_hub")
        log.handlers[:] = [_RetryHandler(options.on_retry)]

    def list_files(self) -> list[ListedFile]:
        """Return all files as the hub lists them, for `accept` to check. Raises AccessError or RetryableError."""
        self._session.rate_limit = self._rate_limit.of_listing(MAX_BYTES)
        try:
            listing = self._api.list_repo_files(self._repo, "model", revision=self._revision)
        except (HubError, requests.RequestException) as error:
            raise self._job_error(error) from error
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._not_a_hub() from error  # the SDK failed to read JSON that is no listing
        return [ListedFile(f.path, f.size, f.sha256) for f in listing if not f.is_dir]

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Fetch *files* below *into*, resuming partial ones and replacing those that are there. Raises a JobError, or
        the OSError of a volume that cannot be written, after every file was tried; what arrived stays. The SDK is not
        given the files' sha256, which it would check in the receiving thread, so a return does not mean that the bytes
        are right. It still checks a file in ranges, and where the hub sends `X-Linked-ETag`."""
        self._session.rate_limit = self._rate_limit
        try:
            self._api.download_repo(
                self._repo,
                "model",
                revision=self._revision,
                local_dir=into,
                max_workers=_MAX_WORKERS,
                file_list=[{"Path": f.path, "Size": f.size} for f in files],
                progress_callbacks=[_meter(progress)],
            )
        except FileDownloadError as failure:
            errors = [self._job_error(error, path) for path, error in failure.failed_files.items()]
            worst = min(errors, key=lambda error: _SEVERITY.index(type(error)))
            raise _disk_error(failure) or worst from failure
        except (HubError, requests.RequestException) as error:
            raise self._job_error(error) from error

    def _job_error(self, error: BaseException, path: str = "") -> JobError:
        """Return an error of `_SEVERITY`, with its remedy, for what the SDK raised about *path*; empty: about no single
        file. A 401 or 403 is an `_EndedError` if our session has retried it in vain, else the SDK's own error."""
        if isinstance(error, _EndedError) and error.status in (401, 403):
            return self._refused(str(error))
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            return self._refused(str(error.status_code))
        if isinstance(error, NotExistError):
            return AccessError(
                f"{self._endpoint} has no {path + ' in ' if path else ''}{self._repo} at revision "
                f"{self._revision} (404); check MODEL_CACHE_REPO and MODEL_CACHE_REVISION, "
                f"or set MODEL_CACHE_TOKEN_FILE if it is private{self._if_missing}"
            )
        if isinstance(error, FileIntegrityError):
            return IntegrityError(
                f"{self._endpoint} keeps sending wrong bytes for {path}; "
                "run again, try another hub with MODEL_CACHE_ENDPOINT, or tell the repository's owner"
            )
        if isinstance(error, requests.JSONDecodeError):  # raised for the listing's body
            return self._not_a_hub()
        return RetryableError(
            f"cannot fetch {path or self._repo} from {self._endpoint} ({cause(error)}); "
            "check the network and MODEL_CACHE_ENDPOINT, then run again: what arrived is kept"
        )

    def _refused(self, why: str) -> AccessError:
        """Return the error for a 401 or 403, which *why* quotes."""
        return AccessError(
            f"{self._endpoint} refuses {self._repo} ({why}); "
            "put an access token with the right to it into a file and set MODEL_CACHE_TOKEN_FILE"
        )

    def _not_a_hub(self) -> RetryableError:
        """Return the error for an answer that is no hub's, such as a proxy's page; it may be gone the next time."""
        return RetryableError(
            f"{self._endpoint} does not answer like a ModelScope hub; "
            "check MODEL_CACHE_ENDPOINT and any proxy on the way, then run again"
        )


def _meter(progress: Progress) -> type[ProgressCallback]:
    """Return the class that the SDK makes an object of for each file, and again when it starts a file over."""

    class Meter(ProgressCallback):
        """Tells the progress of one file's bytes as the SDK reports them."""

        def __init__(self, filename: str, file_size: int) -> None:
            super().__init__(filename, file_size)
            progress.start(filename, file_size)

        def update(self, size: int) -> None:
            """Count bytes, below 0 dropped ones. A read is at most a chunk: more is what an earlier run left."""
            progress.add(self.filename, size, moved=0 < size <= _CHUNK_BYTES)

    return Meter


class _EndedError(HubError):
    """Tells the SDK that a request failed for good: the session retried it. *status*: of the last answer, or None.
    Without an *error_code* HubError puts none before the message."""

    error_code = None
    retryable = False

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _SdkSession(Session):
    """Replaces the SDK's session, which would retry by rules of its own; raises HubErrors, which the SDK passes on."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as requests has it
        """Send the request as `Session` does, with its retries. Raises _EndedError when they ran out."""
        try:
            return super().request(*args, **kwargs)
        except RefusedError as error:
            raise _EndedError(str(error), error.status) from None

    def _count_arrived(self, count: int) -> None:
        """Count bytes; a broken limit is raised as an error that the SDK does not retry."""
        try:
            super()._count_arrived(count)
        except TransferLimitError as error:
            raise _EndedError(str(error)) from None


class _RetryHandler(logging.Handler):
    """Passes the retries in the SDK's log to *on_retry*; drops the rest, since its errors arrive as exceptions."""

    def __init__(self, on_retry: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_retry = on_retry

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of a retry, in one line: a warning with that word, which the SDK logs from the thread that downloads."""
        if record.levelno == logging.WARNING and "retry" in record.getMessage():
            self._on_retry(" ".join(record.getMessage().split()))


def _open_no_link(path: str | Path, mode: str) -> IO[Any]:
    """Replace open() in the SDK's download module (`Hub.__init__` puts it there): refuse a symbolic link that lies
    where the file should be, which open() would follow to overwrite what it leads to. 0o666: as open() has it."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def _disk_error(failure: FileDownloadError) -> OSError | None:
    """Return the first failure of the volume, to be reported before those of the network, or None. Network failures are
    OSErrors too, but the SDK's (NetworkError) are HubErrors, and a RequestException has no errno."""
    errors = (error for error in failure.failed_files.values() if not isinstance(error, HubError))
    return next((error for error in errors if isinstance(error, OSError) and error.errno), None)
