"""What an operator may set: the only module that touches the environment."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_cache.errors import ConfigError
from model_cache.storage.filesystem import is_shared

_PREFIX = "MODEL_CACHE_"
_Kind = TypeVar("_Kind", bound=BaseSettings)
_MIN_LIMIT = 100_000  # bytes a second, of MODEL_CACHE_MOST_BYTES_PER_S; the SDK ends connections below 1024
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")

# The SDK's own settings. Its defaults fail any file that takes over an hour, or a lock held over ten minutes.
_SDK_SETTINGS: Mapping[str, str] = {
    # A file in ranges is written twice, in parts and as a whole: good only if so large that few are loaded at once.
    "MODELSCOPE_DOWNLOAD_PARALLEL_THRESHOLD_MB": "4000",
    "MODELSCOPE_DOWNLOAD_PARALLEL_WORKERS": "2",
    "MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT": "86400",
    "MODELSCOPE_DOWNLOAD_FILE_LOCK_TIMEOUT_SECONDS": "86400",
    # for one of sixteen connections (8 files, 2 ranges each), on a slow link: rate_limit judges all together
    "MODELSCOPE_DOWNLOAD_MIN_BYTES_PER_SECOND": "1024",
    "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "10",
    "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",
    # our own session ends a listing that is too slow or too long, and does the retries
    "MODELSCOPE_REPO_TREE_PAGE_TIMEOUT_SECONDS": "86400",
    "TQDM_DISABLE": "1",
}


def _slug(value: str) -> str:
    """Return the slug, a DNS name too. Raises ValueError, as all checks here: pydantic calls them, `load` reports."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", value):
        raise ValueError(f"{value!r} is no slug: lower-case letters, digits and '-', as in qwen3-0p6b-cpu")
    return value


def _repo(value: str) -> str:
    """Return the repository's name, which is also a path on the volume. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", value, re.ASCII):
        raise ValueError(f"{value!r} is no repository: give owner/name, as in Qwen/Qwen3-0.6B")
    return value


def _endpoint(value: str) -> str:
    """Return the address without a slash at its end. Raises ValueError if it is no HTTP address."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is no address: give http://host[:port] or https://host[:port]")
    return value.rstrip("/")


def _fallbacks(value: str) -> str:
    """Return MODEL_CACHE_FALLBACKS if each of its words is a source. Raises ValueError."""
    for fallback in value.split():
        kind, _, place = fallback.partition(":")
        if kind in ("hf", "node"):
            _endpoint(place)
        elif kind != "dir" or not place.startswith("/"):
            raise ValueError(f"{fallback!r} is none of hf:http..., node:http... and dir:/...")
    return value


def _ca(value: Path) -> Path:
    """Return the path if certificates can be read there; else every request would fail. Raises ValueError."""
    import ssl  # lazily, since few set it

    try:
        ssl.create_default_context(cafile=value)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{value} holds no certificates in PEM form that can be read: {error}") from error
    return value


def _limit(value: int) -> int:
    """Return the limit in bytes a second; 0 means none. Raises ValueError for one that would starve the connections."""
    if 0 < value < _MIN_LIMIT:
        raise ValueError(
            f"{value} is less than the {_MIN_LIMIT} bytes a second that sixteen connections need"
        )
    return value


class VolumeSettings(BaseSettings):
    """Where the weights are. Each is read from ``MODEL_CACHE_<NAME>``; an empty variable counts as unset."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True)

    dir: Path = Path("/weights")
    """The weights volume."""
    volume: Literal["auto", "local", "shared"] = "auto"
    """shared: other hosts may write to it too, so the kernel's locks are not enough; auto: shared unless known as
    local."""

    def is_shared(self) -> bool:
        """Return whether other hosts may write to the volume, by the setting or its file system. Raises OSError."""
        return is_shared(self.volume, self.dir)


class Settings(VolumeSettings):
    """One run's settings."""

    slug: Annotated[str, AfterValidator(_slug)]
    """Names the link under slugs/ that workers follow."""
    repo: Annotated[str, AfterValidator(_repo)]
    """ModelScope repository, owner/name."""
    online_repo: Annotated[str, AfterValidator(_repo)] | None = None
    """Repository of the unquantised weights, for slugs that can do with them."""
    source: Literal["published", "online"] = "published"
    """online: fetch ``online_repo`` in the place of ``repo``; vLLM quantises it when it loads."""
    if_missing: str = ""
    """What an operator may do if the hub does not know the repository; added to the error for a 404."""
    revision: Annotated[str, Field(min_length=1)] = "master"
    """Branch, tag or commit on the hub. A branch is resolved once: a complete snapshot is not looked up again."""
    lock_file: Path | None = None
    """The slug's weights.lock: what it lists is fetched, whatever the hub lists today. May be missing."""
    card_file: Path | None = None
    """The slug's card.yaml. Repository code is fetched only where it says ``trust_remote_code: true``."""
    beat_s: Annotated[float, Field(gt=0)] = 10
    """On a shared volume: seconds between a run's heartbeats. After three without one it counts as dead."""
    endpoint: Annotated[str, AfterValidator(_endpoint)] = "https://modelscope.cn"
    """Address of the hub. Always passed explicitly: the SDK would otherwise also ask its second site."""
    token_file: Path | None = None
    """File that holds an access token, for private repositories."""
    proxy_file: Path | None = None
    """File that holds a proxy's address, with user and password; HTTPS_PROXY and HTTP_PROXY would show them to whoever
    may look at the container."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8002
    """Port of /progress and /metrics while the job runs; 0 takes any free one."""
    fallbacks: Annotated[str, AfterValidator(_fallbacks)] = ""
    """Other sources, in order, separated by spaces: hf:ADDRESS (a Hugging Face hub or its mirror), node:ADDRESS
    (another node's serve-weights), dir:PATH."""
    import_dir: Path | None = None
    """A directory with an export of the slug's weights: the only source then, without a hub."""
    node_token_file: Path | None = None
    """File that holds the token of the nodes among the fallbacks."""
    most_bytes_per_s: Annotated[int, Field(ge=0), AfterValidator(_limit)] = 0
    """The maximum rate of the download over all connections; 0: no limit."""
    least_bytes_per_s: Annotated[int, Field(ge=0)] = 10_000
    """A download that is slower over ``patience_s`` counts as broken off; 0: never."""
    patience_s: Annotated[float, Field(gt=0)] = 600
    """Seconds over which a download's rate is measured."""
    retry_s: Annotated[float, Field(ge=0, le=86_400)] = 300
    """Total seconds that a request waits for a source that fails or asks to wait, before the next source is asked."""
    ca_file: Annotated[Path, AfterValidator(_ca)] | None = None
    """PEM file with certificates of CAs that are trusted beside the usual ones."""
    progress: Literal["auto", "json", "text"] = "auto"
    """Lines on stdout: text for people, JSON for machines; auto means text on a terminal only."""

    @field_validator("source")
    @classmethod
    def _has_unquantised(cls, source: str, others: ValidationInfo) -> str:
        """Return *source*; *others*: the fields above it, checked before. Raises ValueError if it has no repository."""
        if source == "online" and others.data.get("online_repo") is None:
            raise ValueError(f"{others.data.get('slug')} has no weights that are quantised at load; unset it")
        return source

    @property
    def chosen_repo(self) -> str:
        """The repository to fetch, by `source`."""
        return self.online_repo if self.source == "online" and self.online_repo else self.repo

    @property
    def chosen_lock_file(self) -> Path | None:
        """The lock of the repository to fetch; the unquantised weights have none."""
        return self.lock_file if self.chosen_repo == self.repo else None

    def token(self) -> str | None:
        """Return the token in ``token_file``, None when no file is set. Raises ConfigError when `read_token` does."""
        return read_token(self.token_file, f"{_PREFIX}TOKEN_FILE") if self.token_file else None

    def proxy(self) -> str | None:
        """Return the proxy's address in ``proxy_file``, None if no file is set. Raises ConfigError as `read_token`."""
        variable = f"{_PREFIX}PROXY_FILE"
        return read_token(self.proxy_file, variable, "proxy's address") if self.proxy_file else None

    def node_token(self) -> str | None:
        """Return the token in ``node_token_file``, None if no file is set. Raises ConfigError if `read_token` does."""
        return read_token(self.node_token_file, f"{_PREFIX}NODE_TOKEN_FILE") if self.node_token_file else None

    @property
    def other_sources(self) -> list[tuple[str, str]]:
        """The fallbacks in order: kind (hf, node, dir) and place (address, path) of each."""
        parts = (fallback.partition(":") for fallback in self.fallbacks.split())
        return [(kind, place.rstrip("/") or "/") for kind, _, place in parts]


def read_token(path: Path, variable: str, what: str = "token") -> str:
    """Return the token, or *what* else, in the file at *path*, a setting called *variable*. Raises ConfigError if it
    cannot be read, is empty, or could not be sent in a header."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the {what}: {error}; check {variable}") from error
    if not token:
        raise ConfigError(f"{path} is empty: write the {what} into it or unset {variable}")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(
            f"{path} is no {what}: it has spaces, several lines or characters that are not ASCII"
        )
    return token


class ServeSettings(VolumeSettings):
    """Settings of serve-weights."""

    serve_token_file: Path
    """File with the token that other nodes must bring."""
    serve_port: Annotated[int, Field(ge=0, le=65535)] = 8004
    """Port it listens on; 0 takes any free one."""

    def token(self) -> str:
        """Return the token. Raises ConfigError when `read_token` does."""
        return read_token(self.serve_token_file, f"{_PREFIX}SERVE_TOKEN_FILE")


def load(kind: type[_Kind]) -> _Kind:
    """Read the settings of this *kind*. Raises ConfigError naming every variable that is missing or wrong."""
    try:
        return kind.model_validate({})  # kind() reads the same, but mypy would ask it for the fields
    except ValidationError as error:
        faults = "; ".join(_fault(str(e["loc"][0]), e["type"], e["msg"]) for e in error.errors())
        raise ConfigError(faults) from error


def export_proxies(proxy: str | None = None) -> None:
    """Put http:// before proxies in the environment without a scheme; `connect` calls it, for `sources.proxies`.
    *proxy*: the only one, in place of those in the environment."""
    names = (*_PROXIES, *map(str.lower, _PROXIES))
    if proxy is not None:
        os.environ.update(dict.fromkeys(names, proxy))
    for name in names:
        if (value := os.environ.get(name, "").strip()) and "://" not in value:
            os.environ[name] = f"http://{value.lstrip('/')}"


def _fault(field: str, kind: str, message: str) -> str:
    """Return what is wrong with one variable, for `load`, from pydantic's error: its field, type and message."""
    text = "is not set" if kind == "missing" else message.removeprefix("Value error, ")
    return f"{_PREFIX}{field.upper()}: {text}"


def export_to_sdk(cache: Path, home: Path) -> None:
    """Set what the SDK reads from the environment when it is imported; `Job` calls it before. What the operator has set
    stays, except these two: *cache* holds its lock files, and is where `Volume.sdk_cache` says; *home* holds its
    credentials, which it unpickles, and must be private to this run."""
    os.environ.update(_SDK_SETTINGS | os.environ)
    os.environ.update(MODELSCOPE_CACHE=str(cache), MODELSCOPE_HOME=str(home))
