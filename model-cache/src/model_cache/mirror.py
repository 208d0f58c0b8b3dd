"""Files by plain HTTP, a URL each: from a Hugging Face hub, or from another node that serves its weights."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from model_cache.errors import AccessError, IntegrityError, RetryableError
from model_cache.listing import ListedFile
from model_cache.manifest import ManifestFile
from model_cache.pace import Pace, TooSlow
from model_cache.progress import Progress

_FILES_AT_ONCE = 4
_CHUNK_BYTES = 128 << 10  # what breaks off within one is lost
_TRIES, _LONGEST_PAUSE_S = 6, 30.0
_TIMEOUT_S = (10.0, 60.0)  # to connect, and between two reads
_REFUSED = (401, 403, 404)


class Mirror:
    """One of them. *url_of*: a file's address; *listing*: the address of a READY.json of the repository, where there is
    one; *token*: for the Authorization header, which no other host is sent.
    """

    def __init__(
        self,
        name: str,
        url_of: Callable[[ManifestFile], str],
        pace: Pace,
        on_retry: Callable[[str], None],
        *,
        listing: str | None = None,
        token: str | None = None,
    ) -> None:
        self.name = name
        self._url_of = url_of
        self._pace = pace
        self._on_retry = on_retry
        self._listing = listing
        self._headers = {"Accept-Encoding": "identity"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )

    def list_files(self) -> list[ListedFile] | None:
        """None where it has no listing with a sha256 for every file. Raises JobError."""
        if self._listing is None:
            return None
        try:
            with self._get(self._listing, {}) as answer:
                return [_listed(entry) for entry in answer.json()["files"]]
        except (
            requests.RequestException,
            ValueError,
            KeyError,
            TypeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise RetryableError(
                f"{self.name} gives no listing ({error}); check that it can be reached"
            ) from error

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Several files at a time. Raises JobError, or OSError of the volume, after every file was tried."""
        with ThreadPoolExecutor(max_workers=_FILES_AT_ONCE) as pool:
            for done in [pool.submit(self._fetch, file, into, progress) for file in files]:
                done.result()

    def _fetch(self, file: ManifestFile, into: Path, progress: Progress) -> None:
        target = into / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(
            f"{target.name}.incomplete"
        )  # the name that the SDK gives it: either goes on with it
        for tried in range(1, _TRIES + 1):
            try:
                self._append(file, part, progress)
                part.replace(target)
                return
            except requests.RequestException as error:
                self._wait(file, error, tried)

    def _wait(self, file: ManifestFile, error: Exception, tried: int) -> None:
        """Raises RetryableError after the last try."""
        if tried == _TRIES:
            raise RetryableError(
                f"{self.name} breaks off {file.path} ({error}); run again: what arrived is kept"
            )
        self._on_retry(f"{file.path} from {self.name}: {error}: trying again")
        time.sleep(min(_LONGEST_PAUSE_S, 2.0 ** (tried - 1)))

    def _append(self, file: ManifestFile, part: Path, progress: Progress) -> None:
        """Bring *part* to the file's size. Raises RequestException, JobError or OSError."""
        have = part.stat().st_size if part.exists() else 0
        have = have if have <= file.size else 0
        progress.start(file.path, file.size)
        progress.add(file.path, have, moved=False)
        if have == file.size:
            part.touch()
            return
        with self._get(self._url_of(file), {"Range": f"bytes={have}-"} if have else {}) as answer:
            begin = have if answer.status_code == requests.codes.partial_content else 0
            progress.add(file.path, begin - have, moved=False)
            self._write(answer, part, begin, file, progress)

    def _write(
        self, answer: requests.Response, part: Path, begin: int, file: ManifestFile, progress: Progress
    ) -> None:
        with part.open("r+b" if begin else "wb") as target:
            target.seek(begin)
            for chunk in answer.iter_content(_CHUNK_BYTES):
                self._check_size(target.tell() + len(chunk), file, part)
                target.write(chunk)
                progress.add(file.path, len(chunk))
                self._take(len(chunk))
            size = target.tell()
        if size < file.size:
            raise requests.ConnectionError(f"it ended after {size:,} of {file.size:,} bytes")

    def _check_size(self, size: int, file: ManifestFile, part: Path) -> None:
        if size > file.size:
            os.unlink(part)
            raise IntegrityError(f"{self.name} sends more than the {file.size:,} bytes that {file.path} has")

    def _take(self, count: int) -> None:
        try:
            self._pace.take(count)
        except TooSlow as slow:
            raise RetryableError(f"{self.name} is too slow: {slow}") from slow

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Raises AccessError or RequestException."""
        try:
            answer = requests.get(url, headers=self._headers | headers, timeout=_TIMEOUT_S, stream=True)
        except (ValueError, UnicodeError) as error:  # a redirect to something that is no address
            raise requests.ConnectionError(str(error)) from error
        if answer.status_code in _REFUSED:
            answer.close()
            raise AccessError(
                f"{self.name} answers {answer.status_code} for {url}; check its address and its token"
            )
        answer.raise_for_status()
        return answer


def hugging_face(
    endpoint: str, repo: str, revision: str, pace: Pace, on_retry: Callable[[str], None]
) -> Mirror:
    """A Hugging Face hub, or a mirror of it, as a source of files that are known already."""
    branch = "main" if revision == "master" else revision
    base = f"{endpoint}/{repo}/resolve/{quote(branch, safe='')}"
    return Mirror(endpoint, lambda file: f"{base}/{quote(file.path)}", pace, on_retry)


def node(
    address: str, repo: str, revision: str, token: str | None, pace: Pace, on_retry: Callable[[str], None]
) -> Mirror:
    """Another node that runs `serve-weights`: it is asked for content, whatever it is called there."""
    listing = f"{address}/v1/weights/{repo}?revision={quote(revision, safe='')}"
    return Mirror(
        address,
        lambda file: f"{address}/v1/files/{file.sha256}",
        pace,
        on_retry,
        listing=listing,
        token=token,
    )


def _listed(entry: dict[str, Any]) -> ListedFile:
    return ListedFile(str(entry["path"]), int(entry["size"]), str(entry["sha256"]))
