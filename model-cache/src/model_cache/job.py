"""The run, from a name on the hub to a verified, published snapshot. Reads top-down."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from model_cache.errors import AccessError, ConfigError, IntegrityError
from model_cache.manifest import card, lockfile
from model_cache.manifest.document import WrongDocumentError
from model_cache.manifest.listing import Accepted, ListedFile, accept, missing_from
from model_cache.manifest.lockfile import Lock
from model_cache.manifest.manifest import READY, Manifest, ManifestFile
from model_cache.settings import Settings, export_to_sdk
from model_cache.sources.chain import Sources, connect
from model_cache.storage import ready, safe_open
from model_cache.storage.ready import Stamp
from model_cache.storage.verify import Verdict, verify
from model_cache.storage.volume import Volume, explained, has_size
from model_cache.telemetry.progress import Phase, Progress, Work
from model_cache.telemetry.progress_server import serving
from model_cache.telemetry.report import Reporter, human_bytes


class Job:
    """One run for one slug."""

    def __init__(self, settings: Settings, progress: Progress, report: Reporter) -> None:
        self._settings = settings
        self._progress = progress
        self._report = report
        self._volume = Volume(
            settings.dir,
            settings.chosen_repo,
            settings.slug,
            shared=settings.is_shared(),
            beat_s=settings.beat_s,
        )

    def run(self) -> Path:
        """Return the published snapshot that the slug links to, fetching it if need be. Raises JobError."""
        with explained(self._settings.dir):
            snapshot = self._unchanged()
            if snapshot is None:
                self._say_wrong_record(self._volume.linked())
                snapshot = self._mended_or_fetched()
            self._say_ready(snapshot)
        return snapshot

    def verify(self) -> Path:
        """Read every byte of the published snapshot; fetch again what is wrong. Raises JobError."""
        with explained(self._settings.dir):
            if (snapshot := self._volume.linked()) is None or not os.path.lexists(snapshot / READY):
                raise ConfigError(
                    f"{self._settings.slug} has no published weights to verify: fetch them first, with "
                    f"docker compose up {self._settings.slug}-weights"
                )
            self._say_wrong_record(snapshot)
            snapshot = self._mended_or_fetched(every_byte=True)
            self._say_ready(snapshot)
        return snapshot

    def _published_record(self) -> ready.Ready | None:
        """What the slug links to, whether or not it is what is asked for."""
        snapshot = self._volume.linked()
        return ready.read(snapshot) if snapshot else None

    def _unchanged(self) -> Path | None:
        """The linked snapshot, if every file's stat is as published: no network, no hashing."""
        snapshot = self._linked()
        record = ready.read(snapshot) if snapshot else None
        if snapshot is None or record is None or record.changed(snapshot):
            return None
        return None if self._is_newly_locked(record) else snapshot

    def _is_newly_locked(self, record: ready.Ready) -> bool:
        """Whether READY.json has yet to say that weights.lock names these files; that takes no hub and no hashing."""
        return not record.locked and self._is_locked(record.lock())

    def _linked(self) -> Path | None:
        """The snapshot that the slug links to, if it is what is asked for."""
        record = self._published_record()
        return self._volume.linked() if record and self._is_wanted(record) else None

    def _is_wanted(self, record: ready.Ready) -> bool:
        wanted = self._lock()
        return record.is_for(self._settings.chosen_repo, self._settings.revision) and (
            wanted is None or wanted.manifest.digest == record.digest
        )

    def _lock(self) -> Lock | None:
        """The slug's weights.lock, or else what was recorded at first use. Raises ConfigError."""
        return self._own_lock() or lockfile.read(
            self._volume.recorded_lock(self._settings.revision), follow_link=False
        )

    def _own_lock(self) -> Lock | None:
        settings = self._settings
        path = settings.chosen_lock_file
        own = lockfile.read(path) if path else None
        if own and not own.is_for(settings.chosen_repo, settings.revision):
            raise ConfigError(
                f"{path} is of {own.repo} at {own.revision}, and {settings.chosen_repo} at {settings.revision} is "
                f"asked for; write it anew: make lock-weights MODEL={settings.slug}"
            )
        return own

    def _mended_or_fetched(self, *, every_byte: bool = False) -> Path:
        with (
            serving(self._progress, self._settings.port, self._report.line),
            explained(self._settings.dir),
            self._report.ticking(),
        ):
            self._say_listing()
            self._volume.prepare()
            with self._volume.lock(on_wait=self._say_waiting):
                if not every_byte and (snapshot := self._unchanged()):
                    return snapshot  # another run has done it all
                published = self._volume.linked() if every_byte else self._linked()
                return self._mended(published, every_byte=every_byte) or self._fetched()

    def _mended(
        self, snapshot: Path | None, content: Lock | None = None, *, every_byte: bool = False
    ) -> Path | None:
        """The published *snapshot* with its record renewed, if every byte is still right; as *content*, if it is given.

        Stats differ after a volume was copied. A snapshot with wrong bytes is withdrawn at once.
        """
        record = ready.read(snapshot) if snapshot else None
        if snapshot is None or record is None:
            return None
        suspects = record.manifest().files if every_byte else record.changed(snapshot)
        verdict = self._verified(snapshot, suspects, lambda: self._volume.take_ready_away(snapshot))
        if verdict.wrong:
            self._volume.withdraw(snapshot, verdict.wrong)
            self._say_withdrawn(verdict.wrong)
            return None
        content, stamps = content or record.lock(), record.stamps() | verdict.stamps
        self._volume.mark_ready(snapshot, content, stamps, locked=self._is_locked(content))
        return snapshot

    def _is_locked(self, content: Lock) -> bool:
        """Whether weights.lock, and not only the hub at first use, says so."""
        return self._own_lock() == content

    def _lock_of(self, manifest: Manifest) -> Lock:
        return Lock(self._settings.chosen_repo, self._settings.revision, manifest)

    def _fetched(self) -> Path:
        wanted = self._lock()
        if wanted and (snapshot := self._relinked(wanted.manifest)):
            return snapshot
        with self._connected() as hub:
            manifest = self._wanted(hub, wanted)
            self._volume.require_names(manifest)
            if snapshot := self._relinked(manifest):
                return snapshot
            staging = self._volume.stage(manifest)
            self._volume.require_space(staging, manifest)
            stamps = self._fill(hub, staging, manifest)
        self._enter_done("publishing", manifest)
        return self._published(self._lock_of(manifest), stamps)

    def _relinked(self, manifest: Manifest) -> Path | None:
        """The snapshot of *manifest*, where another slug or an earlier run has published it."""
        content = self._lock_of(manifest)
        snapshot = self._mended(self._volume.snapshot(manifest.digest), content)
        if snapshot:
            self._record(content)
            self._volume.link(snapshot)
        return snapshot

    def _record(self, made: Lock) -> None:
        """What is trusted at first use is so from then on."""
        if self._lock() is None:
            self._volume.record_lock(made)

    def _published(self, made: Lock, stamps: Mapping[str, Stamp]) -> Path:
        self._record(made)
        return self._volume.publish(made, stamps, locked=self._is_locked(made))

    def _wanted(self, hub: Sources, wanted: Lock | None) -> Manifest:
        """What the snapshot is to consist of: the lock, or where there is none the hub's listing."""
        listing = hub.list_files(known=wanted is not None)
        if wanted is None:
            return self._trusted(self._accepted(listing))
        if hub.count == 1:
            self._check_listed(listing, wanted)
        self._report.line(
            f"as locked: digest {wanted.manifest.digest[:16]}, {len(wanted.manifest.files)} files"
        )
        return wanted.manifest

    def _check_listed(self, listing: list[ListedFile] | None, wanted: Lock) -> None:
        """Raises IntegrityError before hundreds of gigabytes come that cannot be right."""
        if listing is not None and (gone := missing_from(listing, wanted.manifest)):
            raise IntegrityError(
                f"the hub no longer lists {len(gone)} files as locked, {gone[0].path} first; nothing was downloaded: "
                f"make lock-weights MODEL={self._settings.slug} shows what changed, and accepts it"
            )

    def _trusted(self, accepted: Accepted) -> Manifest:
        digest, slug = accepted.manifest.digest[:16], self._settings.slug
        self._report.line(
            f"no weights.lock: digest {digest} is trusted at first use; make lock-weights MODEL={slug}"
        )
        return accepted.manifest

    def _accepted(self, listing: list[ListedFile] | None) -> Accepted:
        if listing is None:
            raise AccessError(
                "nobody who answers lists a sha256 for every file: a weights.lock is needed, from a host that "
                f"reaches the hub: make lock-weights MODEL={self._settings.slug}"
            )
        accepted = accept(listing, trusts_code=card.trusts_code(self._settings.card_file))
        self._say_accepted(accepted)
        return accepted

    def locked(self) -> Lock:
        """A lock of what the hub lists now, its shard index checked; nothing is published. Raises JobError."""
        with explained(self._settings.dir), self._connected() as hub, tempfile.TemporaryDirectory() as folder:
            accepted = self._accepted(hub.list_files())
            if index := accepted.manifest.index:
                accepted.manifest.check_shards(self._index(hub, Path(folder), index))
        return self._lock_of(accepted.manifest)

    @contextmanager
    def _connected(self) -> Iterator[Sources]:
        with tempfile.TemporaryDirectory(prefix="model-cache-") as home:
            export_to_sdk(self._volume.sdk_cache(Path(home)), Path(home))
            yield connect(self._settings, self._say_retry, self._report.line)

    def _fill(self, hub: Sources, staging: Path, manifest: Manifest) -> dict[str, Stamp]:
        """Download and verify until every file in *staging* is right, and return their stamps.

        Wrong ones get another chance, since what an earlier run had left may be at fault, and then from somebody else
        if there is anybody.
        """
        stamps: dict[str, Stamp] = {}
        left: Sequence[ManifestFile] = manifest.files
        for turn in range(tries := 2 + hub.count):
            self._download(hub, staging, manifest)
            verdict = self._verified(staging, left)
            self._volume.require_ownership()
            left, stamps = verdict.wrong, stamps | verdict.stamps
            if not left:
                return stamps
            _remove(staging, left)
            self._say_retry(f"{len(left)} files differ from their sha256 on disk: removed")
            if turn:
                hub.doubt(left)
        raise IntegrityError(
            f"{len(left)} files on disk differ from their sha256 after {tries} downloads, "
            f"{left[0].path} first; they were removed, the rest is kept: check the disk, or try another hub with "
            "MODEL_CACHE_ENDPOINT, then run again"
        )

    def _download(self, hub: Sources, staging: Path, manifest: Manifest) -> None:
        missing = [file for file in manifest.files if not has_size(staging, file)]
        total, left = _work(manifest.files), _work(missing)
        self._report.enter("downloading", total, Work(total.bytes - left.bytes, total.files - left.files))
        if index := manifest.index:
            manifest.check_shards(self._index(hub, staging, index))
        if rest := [file for file in missing if file != index]:
            hub.download(rest, staging, self._progress)

    def _index(self, hub: Sources, staging: Path, index: ManifestFile) -> bytes:
        """The shard index, right to the last byte, before hundreds of gigabytes follow."""
        for _ in range(1 + hub.count):
            if not has_size(staging, index):
                hub.download([index], staging, self._progress)
            with safe_open.reading(staging, index.path) as file:
                content = file.read(index.size)
            if sha256(content).hexdigest() == index.sha256:
                return content
            safe_open.remove(staging, index.path)
            hub.doubt([index])
        raise IntegrityError(
            f"{index.path} differs from its sha256, whoever sends it; nothing else was downloaded"
        )

    def _verified(
        self, root: Path, files: Sequence[ManifestFile], on_wrong: Callable[[], None] = lambda: None
    ) -> Verdict:
        if not files:
            return Verdict([], {})
        self._report.enter("verifying", _work(files))
        for file in files:
            self._progress.start(file.path, file.size)
        return verify(root, files, lambda file, count: self._progress.add(file.path, count), on_wrong)

    def _enter_done(self, phase: Phase, manifest: Manifest, remark: str | None = None) -> None:
        work = _work(manifest.files)
        self._report.enter(phase, work, work, remark)

    def _say_listing(self) -> None:
        settings = self._settings
        self._report.enter(
            "listing", remark=f"{settings.chosen_repo} at {settings.revision} on {settings.endpoint}"
        )

    def _say_accepted(self, accepted: Accepted) -> None:
        """What could run code when it is loaded."""
        for file in accepted.code:
            self._report.line(f"repository code, trusted by the card: {file.path}, sha256 {file.sha256}")
        for path in accepted.left_out:
            self._report.line(f"left out, since loading it runs code: {path!r}")

    def _say_withdrawn(self, wrong: Sequence[ManifestFile]) -> None:
        for file in wrong:
            self._report.line(
                f"{file.path} is corrupt: set aside, the weights are withdrawn until it is fetched again"
            )

    def _say_ready(self, snapshot: Path) -> None:
        record = ready.read(snapshot)
        if record is None:
            raise IntegrityError(f"{snapshot} lost its record while it was published; run again")
        size = f"{len(record.files)} files, {human_bytes(record.bytes)}"
        remark = f"{record.repo} at {record.revision}: {size}, verified, digest {record.digest[:16]}"
        self._enter_done("ready", record.manifest(), remark)

    def _say_wrong_record(self, snapshot: Path | None) -> None:
        """A record that cannot be trusted is none: its files are read again, and it is written anew."""
        if snapshot is None:
            return
        try:
            ready.checked(snapshot)
        except WrongDocumentError as error:
            self._report.line(f"{snapshot / READY} cannot be trusted ({error}): every file is checked again")

    def _say_waiting(self) -> None:
        self._report.line("waiting: another weights job is writing this repository")

    def _say_retry(self, remark: str) -> None:
        self._progress.retried()
        self._report.line(remark)


def _remove(root: Path, files: Sequence[ManifestFile]) -> None:
    for file in files:
        safe_open.remove(root, file.path)


def _work(files: Sequence[ManifestFile]) -> Work:
    return Work(sum(file.size for file in files), len(files))
