"""The run, from a name on the hub to a verified, published snapshot. Reads top-down."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model_cache import ready, verify
from model_cache.errors import IntegrityError
from model_cache.manifest import Manifest, ManifestFile, from_listing
from model_cache.progress import Phase, Progress, Work
from model_cache.report import Reporter, human_bytes
from model_cache.server import serving
from model_cache.settings import Settings, export_to_sdk
from model_cache.volume import Volume, explain, has_size

if TYPE_CHECKING:
    from model_cache.hub import Hub


class Job:
    """One run for one slug."""

    def __init__(self, settings: Settings, progress: Progress, report: Reporter) -> None:
        self._settings = settings
        self._progress = progress
        self._report = report
        self._volume = Volume(settings.dir, settings.chosen_repo, settings.slug)

    def run(self) -> Path:
        """Return the published snapshot that the slug links to, fetching it if need be. Raises JobError."""
        try:
            snapshot = self._unchanged() or self._mended_or_fetched()
        except OSError as error:
            raise explain(error, self._settings.dir) from error
        self._say_ready(snapshot)
        return snapshot

    def _unchanged(self) -> Path | None:
        """The linked snapshot, if every file's stat is as published: no network, no hashing."""
        snapshot = self._linked()
        record = ready.read(snapshot) if snapshot else None
        return snapshot if snapshot and record and not record.changed(snapshot) else None

    def _linked(self) -> Path | None:
        """The snapshot that the slug links to, if it is of the repository and revision asked for."""
        snapshot = self._volume.linked()
        record = ready.read(snapshot) if snapshot else None
        return (
            snapshot
            if record and record.is_for(self._settings.chosen_repo, self._settings.revision)
            else None
        )

    def _mended_or_fetched(self) -> Path:
        with serving(self._progress, self._settings.port), self._report.ticking():
            self._say_listing()
            self._volume.prepare()
            with self._volume.lock(on_wait=self._say_waiting):
                # by now another run may have done it all
                return self._unchanged() or self._mended(self._linked()) or self._fetched()

    def _mended(self, snapshot: Path | None) -> Path | None:
        """The published *snapshot* with its record renewed, if every byte is still right.

        Stats differ after a volume was copied. A snapshot with wrong bytes is unpublished at once.
        """
        record = ready.read(snapshot) if snapshot else None
        if snapshot is None or record is None:
            return None
        if wrong := self._wrong(snapshot, record.changed(snapshot)):
            self._volume.unpublish(record.digest)
            _remove(self._volume.staging(record.digest), wrong)
            self._report.line(f"{len(wrong)} published files differ from their sha256: fetching them again")
            return None
        self._volume.mark_ready(snapshot, record.manifest(), self._settings.revision)
        return snapshot

    def _fetched(self) -> Path:
        with self._connected() as hub:
            manifest = from_listing(hub.list_files())
            if snapshot := self._mended(self._volume.snapshot(manifest.digest)):
                self._volume.link(snapshot)
                return snapshot
            staging = self._volume.stage(manifest)
            self._volume.require_space(staging, manifest)
            self._fill(hub, staging, manifest)
        self._enter_done("publishing", manifest)
        return self._volume.publish(manifest, self._settings.revision)

    @contextmanager
    def _connected(self) -> Iterator["Hub"]:
        settings = self._settings
        token = settings.token()
        with tempfile.TemporaryDirectory(prefix="model-cache-") as home:
            export_to_sdk(self._volume.sdk_cache, Path(home))
            # The SDK is imported here and nowhere else: a complete snapshot does without it and its start-up
            # time, and it reads its environment once, when imported.
            from model_cache.hub import Hub

            yield Hub(
                settings.endpoint,
                token,
                settings.chosen_repo,
                settings.revision,
                self._say_retry,
                settings.if_missing,
            )

    def _fill(self, hub: "Hub", staging: Path, manifest: Manifest) -> None:
        """Download and verify until every file in *staging* is right; wrong ones get a second chance."""
        for _ in range(2):
            self._download(hub, staging, manifest)
            wrong = self._wrong(staging, manifest.files)
            if not wrong:
                return
            _remove(staging, wrong)
            self._say_retry(f"{len(wrong)} files differ from their sha256 on disk: removed")
        raise IntegrityError(
            f"{len(wrong)} files on disk differ from the hub's sha256 after two downloads, "
            f"{wrong[0].path} first; they were removed, the rest is kept: check the disk, then run again"
        )

    def _download(self, hub: "Hub", staging: Path, manifest: Manifest) -> None:
        missing = [file for file in manifest.files if not has_size(staging, file)]
        total, left = _work(manifest.files), _work(missing)
        self._report.enter("downloading", total, Work(total.bytes - left.bytes, total.files - left.files))
        index = manifest.index
        if index in missing:
            hub.download([index], staging, self._progress)
        if index:
            _check_index(staging / index.path, manifest)
        if rest := [file for file in missing if file != index]:
            hub.download(rest, staging, self._progress)

    def _wrong(self, root: Path, files: Sequence[ManifestFile]) -> list[ManifestFile]:
        if not files:
            return []
        self._report.enter("verifying", _work(files))
        for file in files:
            self._progress.start(file.path, file.size)
        return verify.wrong_files(root, files, lambda file, count: self._progress.add(file.path, count))

    def _enter_done(self, phase: Phase, manifest: Manifest, remark: str | None = None) -> None:
        work = _work(manifest.files)
        self._report.enter(phase, work, work, remark)

    def _say_listing(self) -> None:
        settings = self._settings
        self._report.enter(
            "listing", remark=f"{settings.chosen_repo} at {settings.revision} on {settings.endpoint}"
        )

    def _say_ready(self, snapshot: Path) -> None:
        record = ready.read(snapshot)
        if record is None:
            raise IntegrityError(f"{snapshot} lost its record while it was published; run again")
        size = f"{len(record.files)} files, {human_bytes(record.bytes)}"
        remark = f"{record.repo} at {record.revision}: {size}, verified, digest {record.digest[:16]}"
        self._enter_done("ready", record.manifest(), remark)

    def _say_waiting(self) -> None:
        self._report.line("waiting: another weights job is writing this repository")

    def _say_retry(self, remark: str) -> None:
        self._progress.retried()
        self._report.line(remark)


def _check_index(index: Path, manifest: Manifest) -> None:
    """Check the shard index as soon as it is there, before hundreds of gigabytes follow."""
    try:
        manifest.check_shards(index.read_bytes())
    except IntegrityError:
        index.unlink()  # it may be damaged rather than incomplete: the next run fetches it anew
        raise


def _remove(root: Path, files: Sequence[ManifestFile]) -> None:
    for file in files:
        (root / file.path).unlink(missing_ok=True)


def _work(files: Sequence[ManifestFile]) -> Work:
    return Work(sum(file.size for file in files), len(files))
