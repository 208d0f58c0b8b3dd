"""The sources of a snapshot's files, in order: each is asked for what those before it did not deliver."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from model_cache.errors import AccessError, JobError, combined
from model_cache.manifest.listing import ListedFile
from model_cache.manifest.manifest import ManifestFile
from model_cache.settings import Settings, export_proxies
from model_cache.sources.archive import Archive
from model_cache.sources.local_dir import LocalDirectory
from model_cache.sources.rate_limit import RateLimit
from model_cache.storage.volume import has_size
from model_cache.telemetry.progress import Progress

if TYPE_CHECKING:
    from model_cache.sources.session import HttpOptions


class Source(Protocol):
    """A place that has files. What it delivers is not trusted: every byte is verified from disk afterwards."""

    @property
    def name(self) -> str:
        """What messages call it: its address, or its directory."""
        ...

    def list_files(self) -> list[ListedFile] | None:
        """Return all files that it lists, whether or not it has them; None if it has no listing. Raises JobError."""
        ...

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Fetch all of *files* below *into*, else raise JobError, or OSError of the volume: then what arrived stays, to
        be resumed, except by a `LocalDirectory`."""
        ...


def connect(settings: Settings, on_retry: Callable[[str], None], say: Callable[[str], None]) -> "Sources":
    """Return the hub and its fallbacks, or the archive alone if one is imported. `Job` calls it, after the SDK's
    environment was set. Raises ConfigError."""
    if settings.import_dir is not None:
        archive = Archive(settings.import_dir, settings.slug, settings.chosen_repo, settings.revision)
        return Sources([archive], say)
    # The HTTP modules and the SDK are imported only here: a complete snapshot does without them and their start-up
    # time, and the SDK reads its environment once, when imported.
    from model_cache.sources import proxies
    from model_cache.sources.session import HttpOptions

    export_proxies(settings.proxy())
    mirrors = (place for kind, place in settings.other_sources if kind == "hf")  # a node is asked directly
    proxies.require_usable([settings.endpoint, *mirrors])
    rate_limit = RateLimit(settings.most_bytes_per_s, settings.least_bytes_per_s, settings.patience_s)
    options = HttpOptions(settings.retry_s, on_retry, settings.ca_file)
    others = [_fallback(kind, place, settings, options, rate_limit) for kind, place in settings.other_sources]
    from model_cache.sources.modelscope import Hub

    repo, revision, token = settings.chosen_repo, settings.revision, settings.token()
    hub = Hub(settings.endpoint, token, repo, revision, options, rate_limit, settings.if_missing)
    return Sources([hub, *others], say, rate_limit.begin)


def _fallback(
    kind: str, place: str, settings: Settings, options: "HttpOptions", rate_limit: RateLimit
) -> Source:
    """Return one source of MODEL_CACHE_FALLBACKS: of *kind* `hf` or `node` at an address, or `dir` at a path."""
    from model_cache.sources import http_mirror  # here, since only a run that fetches needs it

    repo, revision = settings.chosen_repo, settings.revision
    if kind == "hf":
        return http_mirror.hugging_face(place, repo, revision, options, rate_limit)
    if kind == "node":
        return http_mirror.node(place, repo, revision, settings.node_token(), options, rate_limit)
    return LocalDirectory(Path(place), repo)


class Sources:
    """Several sources as one, the preferred first. *say* gets a line for each that is dropped while others are left;
    *on_begin* is called before each download, for the rate limit to start anew."""

    def __init__(
        self,
        sources: Sequence[Source],
        say: Callable[[str], None],
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._left = list(sources)
        self._several = len(sources) > 1
        self._say = say
        self._on_begin = on_begin
        self._failed: list[JobError] = []
        self._delivered_by: dict[str, Source] = {}

    @property
    def count(self) -> int:
        """How many sources have not been dropped; it bounds how often `Job` downloads wrong files again."""
        return len(self._left)

    def list_files(self, *, known: bool = False) -> list[ListedFile] | None:
        """Return the first listing there is; None if no source that answers has one. A source that fails is dropped; of
        several, one that refuses stays if the files are *known* by a lock file: it may have them and yet not list them.
        Raises a JobError with each source's reason if none is left."""
        for source in list(self._left):
            try:
                if (listing := source.list_files()) is not None:
                    return listing
            except JobError as error:
                self._failed.append(error)
                if not (known and self._several and isinstance(error, AccessError)):
                    self._give_up(source, error)
        if not self._left:
            raise combined(self._failed)
        return None

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Fetch *files*, each from the first source that delivers it, and note which one that was, for `distrust`.
        Raises a JobError with each source's reason if none does, or OSError of the volume, whatever the source."""
        for source in list(self._left):
            lacking = [file for file in files if not has_size(into, file)]
            try:
                self._on_begin()
                source.download(lacking, into, progress)
            except JobError as error:
                self._failed.append(error)
                self._give_up(source, error)
            else:
                return
            finally:  # one that fails may have delivered some
                self._delivered_by |= {file.path: source for file in lacking if has_size(into, file)}
        raise combined(self._failed)

    def distrust(self, wrong: Sequence[ManifestFile]) -> None:
        """Drop the sources that delivered these files, which `Job` found wrong; the last that is left stays."""
        for source in list(self._left):
            delivered = [file.path for file in wrong if self._delivered_by.get(file.path) is source]
            if delivered and len(self._left) > 1:
                self._give_up(source, f"{source.name} sends wrong bytes for {delivered[0]}")

    def _give_up(self, source: Source, error: JobError | str) -> None:
        """Drop the source for the rest of the run, and say why (*error*) and with which source the run goes on."""
        at = self._left.index(source)
        self._left.remove(source)
        if self._left:  # the next one, or the first again after the last
            self._say(f"{error}; going on with {self._left[at % len(self._left)].name}")
