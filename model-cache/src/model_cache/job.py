"""One run, from a name on the hub to a verified, published snapshot. Reads top-down."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from model_cache.errors import AccessError, ConfigError, IntegrityError
from model_cache.manifest import card, lockfile
from model_cache.manifest.document import WrongDocumentError
from model_cache.manifest.listing import Accepted, ListedFile, accept, missing_from
from model_cache.manifest.lockfile import Lockfile
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
    """One run for one slug: `__main__` makes it and calls `run`, `verify` or `new_lockfile`, the commands, once."""

    def __init__(self, settings: Settings, progress: Progress, report: Reporter) -> None:
        self._settings = settings
        self._progress = progress
        self._report = report
        repo, shared = settings.chosen_repo, settings.is_shared()
        self._volume = Volume(settings.dir, repo, settings.slug, shared=shared, beat_s=settings.beat_s)

    def run(self) -> Path:
        """Return the snapshot that the slug links to, published if need be: the command `fetch`. Raises JobError."""
        with explained(self._settings.dir):
            snapshot = self._unchanged() or self._repair_or_fetch()
            self._say_ready(snapshot)
        return snapshot

    def verify(self) -> Path:
        """Read every byte of the published snapshot; fetch again what is wrong: for `verify`. Raises JobError."""
        with explained(self._settings.dir):
            if (snapshot := self._volume.linked()) is None or not os.path.lexists(snapshot / READY):
                raise ConfigError(
                    f"{self._settings.slug} has no published weights to verify: fetch them first, with "
                    f"docker compose up {self._settings.slug}-weights"
                )
            snapshot = self._repair_or_fetch(every_byte=True)
            self._say_ready(snapshot)
        return snapshot

    def _unchanged(self) -> Path | None:
        """Return the linked snapshot if it is wanted and no stat has changed, else None: no network, no hashing. A run
        whose weights are there already does no more, and takes no lock."""
        if (snapshot := self._linked()) is None or (record := ready.read(snapshot)) is None:
            return None
        # weights.lock came after these files: READY.json has yet to say that it names them (`locked`)
        is_newly_locked = not record.locked and self._is_locked(record.lock())
        return None if is_newly_locked or record.changed(snapshot) else snapshot

    def _linked(self) -> Path | None:
        """Return the slug's linked snapshot if it is what is asked for: repository, revision and lock; else None."""
        if (snapshot := self._volume.linked()) is None or (record := ready.read(snapshot)) is None:
            return None
        wanted = self._wanted_lockfile()
        is_wanted = wanted is None or wanted.manifest.digest == record.digest
        is_named = record.is_for(self._settings.chosen_repo, self._settings.revision)
        return snapshot if is_named and is_wanted else None

    def _wanted_lockfile(self) -> Lockfile | None:
        """Return the slug's weights.lock, or what was recorded at first use, or None before. Raises ConfigError."""
        recorded = self._volume.recorded_lock(self._settings.revision)
        return self._slug_lockfile() or lockfile.read(recorded, follow_link=False)

    def _slug_lockfile(self) -> Lockfile | None:
        """Return the slug's weights.lock, None without one. Raises ConfigError if it is broken or of other weights."""
        settings = self._settings
        path = settings.chosen_lock_file
        own = lockfile.read(path) if path else None
        if own and not own.is_for(settings.chosen_repo, settings.revision):
            raise ConfigError(
                f"{path} is of {own.repo} at {own.revision}, and {settings.chosen_repo} at {settings.revision} is "
                f"asked for; write it anew: make lock-weights MODEL={settings.slug}"
            )
        return own

    def _repair_or_fetch(self, *, every_byte: bool = False) -> Path:
        """Return the published snapshot, repaired or fetched under the volume's write lock; report meanwhile. With
        *every_byte*, for `verify`, all of what is linked is read, also if other weights are wanted now."""
        self._say_wrong_record(self._volume.linked())
        with (
            serving(self._progress, self._settings.port, self._report.line),
            explained(self._settings.dir),  # inside `serving`, which tells of the error that leaves the block
            self._report.periodic_lines(),
        ):
            self._say_listing()
            self._volume.prepare()
            with self._volume.lock(on_wait=self._say_waiting):
                if not every_byte and (snapshot := self._unchanged()):
                    return snapshot  # another run did it while this one waited for the lock
                published = self._volume.linked() if every_byte else self._linked()
                return self._repaired(published, every_byte=every_byte) or self._fetched()

    def _repaired(
        self, snapshot: Path | None, content: Lockfile | None = None, *, every_byte: bool = False
    ) -> Path | None:
        """Return *snapshot* with a new record, of *content* if given; None if it has no record or wrong bytes, which
        withdraw it at once. Files whose stamp differs are hashed (all, on a copied volume or with *every_byte*)."""
        record = ready.read(snapshot) if snapshot else None
        if snapshot is None or record is None:
            return None
        suspects = record.manifest().files if every_byte else record.changed(snapshot)
        verdict = self._verified(snapshot, suspects, lambda: self._volume.remove_ready(snapshot))
        if verdict.wrong:
            self._volume.withdraw(snapshot, verdict.wrong)
            for file in verdict.wrong:
                self._report.line(
                    f"{file.path} is corrupt: set aside, the weights are withdrawn until it is fetched again"
                )
            return None
        content, stamps = content or record.lock(), record.stamps() | verdict.stamps
        self._volume.mark_ready(snapshot, content, stamps, locked=self._is_locked(content))
        return snapshot

    def _is_locked(self, content: Lockfile) -> bool:
        """Return whether the slug's weights.lock, not only the hub at first use, names *content*, for READY.json."""
        return self._slug_lockfile() == content

    def _lockfile_of(self, manifest: Manifest) -> Lockfile:
        """Return *manifest* as a lock file of the repository and revision that this run asks for."""
        return Lockfile(self._settings.chosen_repo, self._settings.revision, manifest)

    def _fetched(self) -> Path:
        """Publish what is wanted and return the snapshot. Names and space are checked before anything is downloaded;
        what is published already is only linked: looked for before a source is asked, and by what the sources list."""
        wanted = self._wanted_lockfile()
        if wanted and (snapshot := self._relinked(wanted.manifest)):
            return snapshot
        with self._sources() as sources:
            manifest = self._wanted(sources, wanted)
            self._volume.require_names(manifest)
            if snapshot := self._relinked(manifest):
                return snapshot
            staging = self._volume.stage(manifest)
            self._volume.require_space(staging, manifest)
            stamps = self._fill(sources, staging, manifest)
        self._enter_done("publishing", manifest)
        content = self._lockfile_of(manifest)
        self._record(content)  # before the link: what a slug serves stays what later runs want
        return self._volume.publish(content, stamps, locked=self._is_locked(content))

    def _relinked(self, manifest: Manifest) -> Path | None:
        """Return the snapshot of *manifest*, linked, if another slug or run published it and it is right; else None."""
        content = self._lockfile_of(manifest)
        snapshot = self._repaired(self._volume.snapshot(manifest.digest), content)
        if snapshot:
            self._record(content)
            self._volume.link(snapshot)
        return snapshot

    def _record(self, made: Lockfile) -> None:
        """Record *made*, which is trusted at first use, for later runs; do nothing if there is a lock file."""
        if self._wanted_lockfile() is None:
            self._volume.record_lock(made)

    def _wanted(self, sources: Sources, wanted: Lockfile | None) -> Manifest:
        """Return what the snapshot shall consist of: the lock file's files, or without one those listed. Sources are
        asked for a listing in both cases: those that fail are dropped, and files that are gone are noticed early."""
        listing = sources.list_files(known=wanted is not None)
        if wanted is None:
            return self._trusted(self._accepted(listing))
        if sources.count == 1:  # of several, another one may have what this listing lacks
            self._check_listed(listing, wanted)
        manifest = wanted.manifest
        self._report.line(f"as locked: digest {manifest.digest[:16]}, {len(manifest.files)} files")
        return manifest

    def _check_listed(self, listing: list[ListedFile] | None, wanted: Lockfile) -> None:
        """Raise IntegrityError if *listing* (None: there is none) lacks what is locked, before hundreds of gigabytes
        are downloaded that cannot be right."""
        if listing is not None and (gone := missing_from(listing, wanted.manifest)):
            raise IntegrityError(
                f"the hub no longer lists {len(gone)} files as locked, {gone[0].path} first; nothing was downloaded: "
                f"make lock-weights MODEL={self._settings.slug} shows what changed, and accepts it"
            )

    def _trusted(self, accepted: Accepted) -> Manifest:
        """Return the manifest of a first use, after a line that says that only the hub's listing vouches for it."""
        digest, slug = accepted.manifest.digest[:16], self._settings.slug
        self._report.line(
            f"no weights.lock: digest {digest} is trusted at first use; make lock-weights MODEL={slug}"
        )
        return accepted.manifest

    def _accepted(self, listing: list[ListedFile] | None) -> Accepted:
        """Return which listed files are fetched. Raises AccessError for None (no source has one), IntegrityError."""
        if listing is None:
            raise AccessError(
                "nobody who answers lists a sha256 for every file: a weights.lock is needed, from a host that "
                f"reaches the hub: make lock-weights MODEL={self._settings.slug}"
            )
        accepted = accept(listing, trusts_code=card.trusts_code(self._settings.card_file))
        self._say_accepted(accepted)
        return accepted

    def new_lockfile(self) -> Lockfile:
        """Return a lock file of what the hub lists now, shard index checked; publish nothing. Raises JobError."""
        with explained(self._settings.dir), self._sources() as sources, tempfile.TemporaryDirectory() as tmp:
            accepted = self._accepted(sources.list_files())
            if index := accepted.manifest.index:
                accepted.manifest.check_shards(self._index(sources, Path(tmp), index))
        return self._lockfile_of(accepted.manifest)

    @contextmanager
    def _sources(self) -> Iterator[Sources]:
        """Yield the sources, not asked yet. The SDK's home is a directory for this block only, since it unpickles what
        lies there; its environment stays set, since it reads that once, when `connect` imports it."""
        with tempfile.TemporaryDirectory(prefix="model-cache-") as home:
            export_to_sdk(self._volume.sdk_cache(Path(home)), Path(home))
            yield connect(self._settings, self._say_retry, self._report.line)

    def _fill(self, sources: Sources, staging: Path, manifest: Manifest) -> dict[str, Stamp]:
        """Download and verify until every file in *staging* is right; return their stamps. Wrong ones are fetched anew:
        from the same source, as an earlier run's part may be at fault, then from others. Raises IntegrityError."""
        stamps: dict[str, Stamp] = {}
        left: Sequence[ManifestFile] = manifest.files
        for tried in range(tries := 2 + sources.count):  # the first source twice, each other, the last again
            self._download(sources, staging, manifest)
            verdict = self._verified(staging, left)
            self._volume.require_ownership()  # hashing takes long: the lock may be lost
            left, stamps = verdict.wrong, stamps | verdict.stamps
            if not left:
                return stamps
            for file in left:
                safe_open.remove(staging, file.path)
            self._say_retry(f"{len(left)} files differ from their sha256 on disk: removed")
            if tried:  # not the first time: what an earlier run left may have been wrong
                sources.distrust(left)
        raise IntegrityError(
            f"{len(left)} files on disk differ from their sha256 after {tries} downloads, "
            f"{left[0].path} first; they were removed, the rest is kept: check the disk, or try another hub with "
            "MODEL_CACHE_ENDPOINT, then run again"
        )

    def _download(self, sources: Sources, staging: Path, manifest: Manifest) -> None:
        """Download what *staging* lacks: the shard index first, since it can show that the manifest is incomplete."""
        missing = [file for file in manifest.files if not has_size(staging, file)]
        total, left = _work(manifest.files), _work(missing)
        self._report.enter("downloading", total, Work(total.bytes - left.bytes, total.files - left.files))
        if index := manifest.index:
            manifest.check_shards(self._index(sources, staging, index))
        if rest := [file for file in missing if file != index]:
            sources.download(rest, staging, self._progress)

    def _index(self, sources: Sources, staging: Path, index: ManifestFile) -> bytes:
        """Return the shard index's bytes, fetched and verified before all the rest follows. Raises IntegrityError."""
        for _ in range(1 + sources.count):  # what an earlier run left, then each source
            if not has_size(staging, index):
                sources.download([index], staging, self._progress)
            with safe_open.reading(staging, index.path) as file:
                content = file.read(index.size)
            if sha256(content).hexdigest() == index.sha256:
                return content
            safe_open.remove(staging, index.path)
            sources.distrust([index])
        raise IntegrityError(
            f"{index.path} differs from its sha256, whoever sends it; nothing else was downloaded"
        )

    def _verified(
        self, root: Path, files: Sequence[ManifestFile], on_wrong: Callable[[], None] = lambda: None
    ) -> Verdict:
        """Enter a phase; read *files* below *root*; return which are right. Threads call *on_wrong* for a wrong one."""
        if not files:
            return Verdict([], {})
        self._report.enter("verifying", _work(files))
        for file in files:
            self._progress.start(file.path, file.size)
        return verify(root, files, lambda file, count: self._progress.add(file.path, count), on_wrong)

    def _enter_done(self, phase: Phase, manifest: Manifest, remark: str | None = None) -> None:
        """Report `publishing` or `ready`, phases after the last byte, with all of the manifest's work done."""
        work = _work(manifest.files)
        self._report.enter(phase, work, work, remark)

    def _say_listing(self) -> None:
        """Report what is wanted of which hub: the first line, unless `_unchanged` finds nothing to do."""
        settings = self._settings
        remark = f"{settings.chosen_repo} at {settings.revision} on {settings.endpoint}"
        self._report.enter("listing", remark=remark)

    def _say_accepted(self, accepted: Accepted) -> None:
        """Report the files that could run code when they are loaded: those trusted, and those left out."""
        for file in accepted.code:
            self._report.line(f"repository code, trusted by the card: {file.path}, sha256 {file.sha256}")
        for path in accepted.left_out:
            self._report.line(f"left out, since loading it runs code: {path!r}")

    def _say_ready(self, snapshot: Path) -> None:
        """Report what is published, at the end of a run. Raises IntegrityError if its record can no longer be read."""
        record = ready.read(snapshot)
        if record is None:
            raise IntegrityError(f"{snapshot} lost its record while it was published; run again")
        size = f"{len(record.files)} files, {human_bytes(record.bytes)}"
        remark = f"{record.repo} at {record.revision}: {size}, verified, digest {record.digest[:16]}"
        self._enter_done("ready", record.manifest(), remark)

    def _say_wrong_record(self, snapshot: Path | None) -> None:
        """Report a record that cannot be trusted; it counts as none: all files are read again, and it is rewritten."""
        if snapshot is None:
            return
        try:
            ready.checked(snapshot)
        except WrongDocumentError as error:
            self._report.line(f"{snapshot / READY} cannot be trusted ({error}): every file is checked again")

    def _say_waiting(self) -> None:
        """Report, for `Volume.lock`, that the run waits for the write lock, for as long as another run has it."""
        self._report.line("waiting: another weights job is writing this repository")

    def _say_retry(self, remark: str) -> None:
        """Count and report that something is tried again; a source calls it too, in its threads."""
        self._progress.retried()
        self._report.line(remark)


def _work(files: Sequence[ManifestFile]) -> Work:
    """Return the bytes and the number of *files*, as a phase reports them."""
    return Work(sum(file.size for file in files), len(files))
