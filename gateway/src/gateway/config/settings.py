"""The gateway's settings. Only this module reads the environment. docs/configuration.md has a row for each setting."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.api.errors import ConfigError

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@,A-Z]+")
FIELD = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
HOST = re.compile(r"\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
LISTS = {  # settings that are lists: what each word must be
    "allowed_fields": (FIELD, "field's name or path such as structured_outputs.regex"),
    "allowed_hosts": (HOST, "host name; give names without http:// and port"),
    "cors_origins": (ORIGIN, "origin; give scheme://host[:port] as browsers send it"),
}

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
MaybeNoSeconds = Annotated[float, Field(ge=0)]


class Settings(BaseSettings):
    """All settings as one frozen value. Field `x` is the variable `GATEWAY_X`."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    # who may use it, and where
    bind: str = "127.0.0.1"  # where clients reach the data port
    listen: str | None = None  # where the process listens, if that is another address, as inside a container
    port: Port = 8000
    ops_port: Port = 8001  # of /metrics and /workers, never published
    open: bool = False  # allows a bind other than loopback without keys
    api_keys_file: Path | None = None
    tls_cert_file: Path | None = None  # PEM: the certificate and its chain; with its key, or neither
    tls_key_file: Path | None = None
    allowed_hosts: str = ""  # names under which a gateway without keys is served, beside this host's own
    cors_origins: str = ""  # of the web pages that may read answers
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    state_dir: Path = Path("/var/lib/octet")  # what outlives the gateway
    usage_days: Annotated[int, Field(ge=32, le=36_500)] = (
        400  # that the record of usage is kept; a month at least
    )
    audit: Literal["off", "on"] = "off"
    audit_prompts: bool = False  # also what requests ask
    audit_days: Annotated[int, Field(ge=1, le=36_500)] = 90  # that the audit log's files are kept

    # limits over several gateways
    limits_redis_url: str | None = None  # of the Redis that they share; None: each counts for itself
    limits_redis_password_file: Path | None = None
    limits_redis_timeout_s: Seconds = 0.25  # in which it must answer
    limits_without_redis: Literal["closed", "open"] = "closed"  # for keys with limits, while it is gone

    # which workers there are, and how they are
    cards_dir: Path = Path("/etc/octet/docker")  # one directory per slug
    workers_file: Path | None = None  # lines `<slug> http://host:port`: workers that DNS does not know
    models_file: Path | None = None  # options per model, and aliases
    dns: bool = True  # look workers up by their slug
    interval_s: Seconds = 2.0  # between rounds of discovery and probes
    probe_timeout_s: Seconds = 2.0
    probe_fall: Count = 3  # failed probes in a row after which a worker is down
    probe_rise: Count = 2  # passed ones after which it is up again
    eject_after: Count = 5  # failed requests in a row
    ejection_s: Seconds = 30.0  # the first one; the next is twice as long
    ejection_max_s: Seconds = 300.0
    slow_start_s: MaybeNoSeconds = 60.0

    # how long a request may take
    connect_timeout_s: Seconds = 2.0
    first_byte_timeout_s: Seconds = 600.0  # without progress
    idle_timeout_s: Seconds = 60.0  # without progress, within an answer that has begun
    total_timeout_s: Seconds = 3600.0
    keep_alive_s: Seconds = 75.0  # of a client's idle connection
    head_timeout_s: Seconds = 10.0
    body_timeout_s: Seconds = 60.0  # and one second more per 64 KiB of it; as long to be decoded and read
    write_timeout_s: Seconds = 30.0  # in which a client must take 4 KiB of its answer
    comment_s: Seconds = 15.0  # of silence in a stream, after which a comment keeps it alive
    pool_idle_s: Seconds = 3.0  # of a worker's connection: below vLLM's own 5 s
    drain_delay_s: MaybeNoSeconds = 1.0  # between /ready turning 503 and the listener closing, at SIGTERM
    drain_s: Count = 60  # that open requests get to finish then

    # how large it may be
    max_text_bytes: Bytes = 10 * 1024 * 1024  # of a JSON body for a model that takes no images
    max_body_bytes: Bytes = 50 * 1024 * 1024
    max_head_bytes: Annotated[int, Field(ge=256, le=1024 * 1024)] = 16 * 1024
    max_headers: Annotated[int, Field(ge=1, le=10_000)] = 64
    field_policy: Literal["strict", "permissive"] = "strict"  # which fields requests may have
    cache_salt: Literal["key", "off"] = "key"  # whether keys share what workers have cached of prompts
    allowed_fields: str = ""  # names and paths of fields that are taken with any value
    bodies_bytes: Bytes = 256 * 1024 * 1024  # of all bodies in all processes; one alone is always taken

    @field_validator("allowed_hosts", "cors_origins", "allowed_fields")
    @classmethod
    def _check_words(cls, value: str, field: ValidationInfo) -> str:
        """Return a setting of LISTS if each of its words is what it must be. Raises ValueError, for pydantic."""
        pattern, advice = LISTS[str(field.field_name)]
        for word in value.split():
            if pattern.fullmatch(word) is None:
                raise ValueError(f"{word!r} is no {advice}, with spaces between")
        return value

    @property
    def listen_address(self) -> str:
        """Return where the process listens: GATEWAY_LISTEN, as its container sets it, else GATEWAY_BIND."""
        return self.listen or self.bind


def load_settings() -> Settings:
    """Read `GATEWAY_*`. Raises ConfigError for the first wrong variable, or if the bind rule is not met."""
    settings = read_settings()
    check_bind_rule(settings)
    check_tls_rule(settings)
    check_audit_rule(settings)
    check_redis_rule(settings)
    return settings


def read_settings() -> Settings:
    """Read `GATEWAY_*` for a command that serves nobody. Raises ConfigError for the first wrong variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from error


def check_bind_rule(settings: Settings) -> None:
    """Raise ConfigError if a bind other than loopback has neither a key file nor an explicit GATEWAY_OPEN=1."""
    if is_loopback(settings.bind) or settings.api_keys_file is not None or settings.open:
        return
    raise ConfigError(
        f"GATEWAY_BIND={settings.bind} would let anybody who reaches it use the models. Either set "
        "GATEWAY_API_KEYS_FILE (make key writes one), or say GATEWAY_OPEN=1 if that is meant"
    )


def check_tls_rule(settings: Settings) -> None:
    """Raise ConfigError if only one of the two files for TLS is named."""
    files = {"GATEWAY_TLS_CERT_FILE": settings.tls_cert_file, "GATEWAY_TLS_KEY_FILE": settings.tls_key_file}
    given = [name for name, path in files.items() if path is not None]
    if len(given) == 1:
        (missing,) = files.keys() - given
        raise ConfigError(f"{given[0]} is set without {missing}: set both for TLS, or neither for plain HTTP")


def check_audit_rule(settings: Settings) -> None:
    """Raise ConfigError if prompts are to be in an audit log that is off: somebody counts on them."""
    if settings.audit_prompts and settings.audit == "off":
        raise ConfigError("GATEWAY_AUDIT_PROMPTS is set without GATEWAY_AUDIT=on: set both, or neither")


def check_redis_rule(settings: Settings) -> None:
    """Raise ConfigError if there is a password for a Redis, or limits in it, but not the other."""
    if settings.limits_redis_url is None:
        if settings.limits_redis_password_file is not None:
            raise ConfigError(
                "GATEWAY_LIMITS_REDIS_PASSWORD_FILE is set without GATEWAY_LIMITS_REDIS_URL: set both for limits over "
                "several gateways, or neither"
            )
    elif settings.api_keys_file is None:
        raise ConfigError(
            "GATEWAY_LIMITS_REDIS_URL is set without GATEWAY_API_KEYS_FILE: without keys there are no limits to share"
        )


def is_loopback(address: str) -> bool:
    """Return whether only this host can reach `address`. Names other than localhost count as reachable from outside."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _first_problem(error: ValidationError) -> str:
    """Return the first fault that pydantic found, in words that begin with the variable and its value."""
    problem = error.errors()[0]
    name = "GATEWAY_" + "_".join(str(part) for part in problem["loc"]).upper()
    return f"{name}={problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}; see docs/configuration.md"
