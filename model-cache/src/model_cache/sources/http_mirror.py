"""Files over plain HTTP, each with its URL: from a Hugging Face hub, or from another node that serves its weights."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import requests
from pydantic import ConfigDict, TypeAdapter

from model_cache.errors import AccessError, IntegrityError, JobError, RetryableError
from model_cache.manifest import document
from model_cache.manifest.document import WrongDocumentError
from model_cache.manifest.listing import MAX_BYTES, ListedFile
from model_cache.manifest.manifest import ManifestFile
from model_cache.sources.rate_limit import RateLimit, TransferLimitError
from model_cache.sources.retries import Failure, Wait, next_step
from model_cache.sources.session import HttpOptions, RefusedError, Session, chunks
from model_cache.storage import safe_open
from model_cache.telemetry.progress import Progress

_FILES_AT_ONCE = 4  # downloads, each in a thread
_CHUNK_BYTES = 128 << 10  # read from a connection and written at a time


@dataclass(frozen=True)
class _Listed:
    """A file as READY.json lists it; its other members are ignored."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Record:
    """The part of a node's READY.json that is read: its files, which `Job` then checks like any listing."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")
    files: tuple[_Listed, ...]


_RECORD = TypeAdapter(_Record)


class HttpMirror:
    """A source at the address *name*. *url_of* gives a file's URL; *listing* is the URL of a READY.json of the
    repository, if there is one; *token* goes into the Authorization header, which requests sends to no other host."""

    def __init__(
        self,
        name: str,
        url_of: Callable[[ManifestFile], str],
        options: HttpOptions,
        rate_limit: RateLimit,
        *,
        listing: str | None = None,
        token: str | None = None,
    ) -> None:
        self.name = name
        self._url_of = url_of
        self._options = options
        self._rate_limit = rate_limit
        self._listing = listing
        self._session = Session(name, options, rate_limit)
        self._headers = {"Accept-Encoding": "identity"} | (  # since a file is resumed by its own bytes
            {"Authorization": f"Bearer {token}"} if token else {}
        )

    def list_files(self) -> list[ListedFile] | None:
        """Return the files; None from a Hugging Face hub, which lists no sha256 for every file. Raises JobError."""
        if self._listing is None:
            return None
        self._session.rate_limit = self._rate_limit.of_listing(MAX_BYTES)
        try:
            with self._get(self._listing, {}) as answer:
                record = document.parsed(_RECORD, b"".join(chunks(answer, _CHUNK_BYTES)))
        except (requests.RequestException, WrongDocumentError, TransferLimitError) as error:
            raise RetryableError(
                f"{self.name} gives no listing ({error}); check that it can be reached"
            ) from error
        return [ListedFile(file.path, file.size, file.sha256) for file in record.files]

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Fetch several files at a time. Raises JobError, or OSError of the volume, once every file was tried."""
        self._session.rate_limit = self._rate_limit
        with ThreadPoolExecutor(max_workers=_FILES_AT_ONCE) as pool:
            for done in [pool.submit(self._fetch, file, into, progress) for file in files]:
                done.result()

    def _fetch(self, file: ManifestFile, into: Path, progress: Progress) -> None:
        """Download one file, in a thread, going on where its body broke off; tries start anew whenever bytes have come.
        Only bodies that break off are retried here: the session does it for requests."""
        # named as the SDK names it, so that either can resume
        part, tried, waited_s = f"{file.path}.incomplete", 0, 0.0
        while True:
            before = _size(into, part)
            try:
                self._append(file, into, part, progress)
                (into / part).replace(into / file.path)
                return
            except TransferLimitError as error:
                raise RetryableError(f"{self.name} is too slow: {error}") from error
            except requests.RequestException as error:
                tried, waited_s = (tried + 1, waited_s) if _size(into, part) <= before else (1, 0.0)
                waited_s += self._wait(file, error, tried, waited_s)

    def _wait(self, file: ManifestFile, error: Exception, tried: int, waited_s: float) -> float:
        """Wait, as for a source that has answered; return the seconds. Raises RetryableError after the last try."""
        step = next_step(
            Failure(), tried=tried, waited_s=waited_s, most_s=self._options.most_s, has_answered=True
        )
        if not isinstance(step, Wait):
            raise RetryableError(
                f"{self.name} breaks off {file.path} ({error}); run again: what arrived is kept"
            )
        self._options.on_retry(f"{file.path} from {self.name}: {error}: trying again")
        began = self._rate_limit.now()
        self._options.sleep(step.seconds)
        self._rate_limit.leave_out(began)
        return step.seconds

    def _append(self, file: ManifestFile, into: Path, part: str, progress: Progress) -> None:
        """Bring *part* to the file's size, resuming it if possible. Raises RequestException, JobError or OSError."""
        have = _size(into, part)
        have = have if have <= file.size else 0  # else it is another file's
        progress.start(file.path, file.size)
        progress.add(file.path, have, moved=False)
        if have == file.size:
            safe_open.writing(into, part, keep=True).close()  # makes it, if the file has no bytes
            return
        with self._get(self._url_of(file), {"Range": f"bytes={have}-"} if have else {}) as answer:
            begin = have if answer.status_code == requests.codes.partial_content else 0
            progress.add(file.path, begin - have, moved=False)  # negative if it sends all from the beginning
            self._write(answer, into, part, begin, file, progress)

    def _write(
        self,
        answer: requests.Response,
        into: Path,
        part: str,
        begin: int,
        file: ManifestFile,
        progress: Progress,
    ) -> None:
        """Write the answer into *part* from *begin* on. Raises ConnectionError if it has too few bytes, to be resumed,
        or IntegrityError if it has too many: then *part* is removed."""
        with safe_open.writing(into, part, keep=bool(begin)) as target:
            target.seek(begin)
            size = begin
            for chunk in chunks(answer, _CHUNK_BYTES):
                size += len(chunk)
                if size > file.size:
                    os.unlink(into / part)  # its bytes are of another file
                    raise IntegrityError(
                        f"{self.name} sends more than the {file.size:,} bytes that {file.path} has"
                    )
                safe_open.write(target, chunk)
                progress.add(file.path, len(chunk))
        if size < file.size:
            raise requests.ConnectionError(f"it ended after {size:,} of {file.size:,} bytes")

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Send a request, repeated by the session; return an answer below 400, its body unread. Raises JobError."""
        try:
            answer = self._session.get(url, headers=self._headers | headers, stream=True)
        except RefusedError as error:
            raise self._error(url, error.status, str(error)) from error
        if answer.status_code < 400:
            return answer
        answer.close()
        raise self._error(url, answer.status_code, f"the answer is {answer.status_code}")

    def _error(self, url: str, status: int | None, why: str) -> JobError:
        """Return the error for the last answer, or for none (*status* None), when no retry is left: AccessError if
        address or token are wrong, or it has no such file; else RetryableError, since a later run may succeed."""
        if status in (401, 403, 404):
            return AccessError(f"{self.name}: {why} for {url}; check its address and its token")
        return RetryableError(
            f"{self.name}: {why} for {url}; check that it can be reached, then run again: what arrived is kept"
        )


def _size(into: Path, part: str) -> int:
    """Return how many bytes of a file have arrived in its *part*; 0 if there is none, or a link in its place."""
    found = safe_open.stat_of(into, part)
    return found.st_size if found else 0


def hugging_face(
    endpoint: str, repo: str, revision: str, options: HttpOptions, rate_limit: RateLimit
) -> HttpMirror:
    """Return a Hugging Face hub or a mirror as a source without a listing: it gives no sha256 for every file."""
    branch = "main" if revision == "master" else revision  # the default branch; `master` on ModelScope
    base = f"{endpoint}/{repo}/resolve/{quote(branch, safe='')}"
    return HttpMirror(endpoint, lambda file: f"{base}/{quote(file.path)}", options, rate_limit)


def node(
    address: str, repo: str, revision: str, token: str | None, options: HttpOptions, rate_limit: RateLimit
) -> HttpMirror:
    """Return another node that runs `serve-weights` as a source: asked by sha256, and not through a proxy."""
    listing = f"{address}/v1/weights/{repo}?revision={quote(revision, safe='')}"
    return HttpMirror(
        address,
        lambda file: f"{address}/v1/files/{file.sha256}",
        replace(options, uses_proxy=False),
        rate_limit,
        listing=listing,
        token=token,
    )
