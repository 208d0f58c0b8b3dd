"""The hub, through the ModelScope SDK, and the only module that imports it.

Importing this module imports the SDK, which reads its knobs from the environment once, at that moment:
``settings.export_to_sdk`` comes first.
"""

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
from model_cache.manifest.listing import MOST_BYTES, ListedFile
from model_cache.manifest.manifest import ManifestFile
from model_cache.sources.proxies import cause
from model_cache.sources.rate_limit import HopelessError, Pace
from model_cache.sources.session import RefusedError, Session, Way
from model_cache.telemetry.progress import Progress

_MAX_WORKERS = 8  # files at a time
# Of one read. The SDK's own setting is in megabytes; what eight threads hold of those, and the holes between, adds up.
_CHUNK_BYTES = 256 << 10

# When several files fail for several reasons, the first of these is what the run reports.
_SEVERITY: tuple[type[JobError], ...] = (AccessError, IntegrityError, RetryableError)


class Hub:
    """One repository at one revision on the hub at *endpoint*.

    *way* hears of each request or file that is tried again; *if_missing* is
    said where the hub does not know the repository.
    """

    def __init__(
        self,
        endpoint: str,
        token: str | None,
        repo: str,
        revision: str,
        way: Way,
        pace: Pace,
        if_missing: str = "",
    ) -> None:
        self._endpoint = self.name = endpoint
        self._repo = repo
        self._revision = revision
        self._pace = pace
        self._if_missing = f". {if_missing}" if if_missing else ""
        _download.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES  # type: ignore[attr-defined]
        _download.open = _open  # type: ignore[attr-defined]
        self._api = HubApi(endpoint=endpoint, token=token)
        self._session = self._api.legacy._read_session = _SdkSession(endpoint, way, pace)
        log = logging.getLogger("modelscope_hub")
        log.handlers[:] = [_RetryHandler(way.on_retry)]

    def list_files(self) -> list[ListedFile]:
        """Every file of the repository, as listed. Raises AccessError or RetryableError."""
        self._session.pace = self._pace.of_listing(MOST_BYTES)
        try:
            listing = self._api.list_repo_files(self._repo, "model", revision=self._revision)
        except (HubError, requests.RequestException) as error:
            raise self._job_error(error) from error
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._not_a_hub() from error
        return [ListedFile(f.path, f.size, f.sha256) for f in listing if not f.is_dir]

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Fetch *files* below *into*, resuming partial ones and replacing those that are there.

        Raises a JobError, or the OSError of a volume that cannot be written, after every file was tried;
        what arrived stays. A return means that the SDK is content, not that the bytes on disk are right:
        it is not told their sha256, which it would check in the thread that receives them. It still does so for a file
        in ranges, and where the hub sends `X-Linked-ETag`.
        """
        self._session.pace = self._pace
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
            raise _disk_error(failure) or self._worst(failure) from failure
        except (HubError, requests.RequestException) as error:
            raise self._job_error(error) from error

    def _worst(self, failure: FileDownloadError) -> JobError:
        errors = [self._job_error(error, path) for path, error in failure.failed_files.items()]
        return min(errors, key=lambda e: _SEVERITY.index(type(e)))

    def _job_error(self, error: BaseException, path: str = "") -> JobError:
        """Map what the SDK raises to the job's errors, each with its remedy."""
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
        if isinstance(error, requests.JSONDecodeError):
            return self._not_a_hub()
        return RetryableError(
            f"cannot fetch {path or 'the listing of ' + self._repo} from {self._endpoint} ({cause(error)}); "
            "check the network and MODEL_CACHE_ENDPOINT, then run again: what arrived is kept"
        )

    def _refused(self, why: str) -> AccessError:
        return AccessError(
            f"{self._endpoint} refuses {self._repo} ({why}); "
            "put an access token with the right to it into a file and set MODEL_CACHE_TOKEN_FILE"
        )

    def _not_a_hub(self) -> RetryableError:
        return RetryableError(
            f"{self._endpoint} does not answer like a ModelScope hub; "
            "check MODEL_CACHE_ENDPOINT and any proxy on the way, then run again"
        )


def _meter(progress: Progress) -> type[ProgressCallback]:
    """The class that the SDK makes an instance of for each file, and again when it starts a file over."""

    class Meter(ProgressCallback):
        def __init__(self, filename: str, file_size: int) -> None:
            super().__init__(filename, file_size)
            progress.start(filename, file_size)

        def update(self, size: int) -> None:
            # one read gives at most a chunk: a larger step is the part that an earlier run left
            progress.add(self.filename, size, moved=0 < size <= _CHUNK_BYTES)

    return Meter


class _EndedError(HubError):
    """What the SDK does not try again, since the session has. *status*: the last answer's, if there was one."""

    error_code = None
    retryable = False

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _SdkSession(Session):
    """Ours in the place of the SDK's, which would try again by rules of its own."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as requests has it
        """Raises HubError."""
        try:
            return super().request(*args, **kwargs)
        except RefusedError as error:
            raise _EndedError(str(error), error.status) from None

    def _arrived(self, count: int) -> None:
        try:
            super()._arrived(count)
        except HopelessError as error:
            raise _EndedError(str(error)) from None


class _RetryHandler(logging.Handler):
    """Takes over the SDK's log: its retries are ours to report, its errors arrive as exceptions."""

    def __init__(self, on_retry: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_retry = on_retry

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING and "retry" in record.getMessage():
            self._on_retry(" ".join(record.getMessage().split()))


def _open(path: str | Path, mode: str) -> IO[Any]:
    """For the SDK, which would follow a link in a file's place."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def _disk_error(failure: FileDownloadError) -> OSError | None:
    """The first failure that is the volume's; the network's are OSErrors too, but without a number."""
    errors = (error for error in failure.failed_files.values() if not isinstance(error, HubError))
    return next((error for error in errors if isinstance(error, OSError) and error.errno), None)
