"""Settings of the gateway: the only reader of its environment. Every field is documented in docs/configuration.md."""

import ipaddress
import re
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.api.errors import ConfigError

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@,A-Z]+")
HOST = re.compile(r"\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


class Settings(BaseSettings):
    """One frozen value object; field `x` is the variable `GATEWAY_X`."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    bind: str = Field("127.0.0.1", description="Address under which clients reach the data port.")
    listen: str | None = Field(
        None, description="Address the process listens on; default GATEWAY_BIND. 0.0.0.0 inside a container."
    )
    port: int = Field(8000, ge=0, le=65535, description="Data port.")
    ops_port: int = Field(8001, ge=0, le=65535, description="Port of /metrics and /workers, never published.")
    open: bool = Field(
        False,
        description="1 allows a bind other than loopback without keys. Whoever reaches the port may use it.",
    )
    api_keys_file: Path | None = Field(
        None, description="File with one hashed key a line; see `make api-key`."
    )
    allowed_hosts: str = Field(
        "",
        description="Names under which clients may reach a gateway without keys, beside this host's own; *: any.",
    )
    cors_origins: str = Field(
        "",
        description="Origins of the web pages that may read answers, as https://app.example; *: any page.",
    )
    cards_dir: Path = Field(Path("/etc/octet/docker"), description="Directory with one directory per slug.")
    workers_file: Path | None = Field(
        None, description="File with lines `<slug> http://host:port`: workers that DNS does not know."
    )
    models_file: Path | None = Field(
        None, description="YAML file with options per model and aliases; none: the defaults for every model."
    )
    dns: bool = Field(
        True, description="Discover workers by resolving each slug; 0 leaves the static list alone."
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that serve the data port; each chooses among workers by itself.",
    )
    interval_s: float = Field(2.0, gt=0, description="Seconds between rounds of discovery and probes.")
    probe_timeout_s: float = Field(2.0, gt=0, description="Seconds a probe may take.")
    probe_fall: int = Field(3, ge=1, description="Failed probes in a row after which a worker is down.")
    probe_rise: int = Field(
        2,
        ge=1,
        description="Probes in a row after which a worker that was down is up; at its first start one.",
    )
    eject_after: int = Field(5, ge=1, description="Failed requests in a row after which a worker is ejected.")
    ejection_s: float = Field(
        30.0, gt=0, description="Seconds of a first ejection; the next is twice as long."
    )
    ejection_max_s: float = Field(300.0, gt=0, description="Seconds of the longest ejection.")
    slow_start_s: float = Field(
        60.0,
        ge=0,
        description="Seconds over which a worker that became ready grows to its full share; 0: at once.",
    )
    connect_timeout_s: float = Field(2.0, gt=0, description="Seconds to open a connection to a worker.")
    first_byte_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Seconds without progress that a worker may take until the first byte of its answer.",
    )
    idle_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Seconds without progress that a worker may be silent within an answer that has begun.",
    )
    total_timeout_s: float = Field(3600.0, gt=0, description="Seconds a request may take in all.")
    keep_alive_s: float = Field(75.0, gt=0, description="Seconds a client's idle connection is kept.")
    head_timeout_s: float = Field(10.0, gt=0, description="Seconds a request's head may take to arrive.")
    body_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Seconds a request's body may take to arrive, and one more per 64 KiB of it; as long to be read.",
    )
    write_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Seconds after which a client that takes less than 4 KiB of its answer is cut off.",
    )
    comment_s: float = Field(
        15.0, gt=0, description="Seconds of silence in a stream after which a comment keeps it alive."
    )
    pool_idle_s: float = Field(
        3.0, gt=0, description="Seconds an idle worker connection is kept: below vLLM's own 5 s."
    )
    max_text_bytes: int = Field(
        10 * 1024 * 1024, gt=0, description="Largest JSON body for a model that takes no images, in bytes."
    )
    max_body_bytes: int = Field(50 * 1024 * 1024, gt=0, description="Largest request body, in bytes.")
    max_head_bytes: int = Field(
        16 * 1024,
        ge=256,
        le=1024 * 1024,
        description="Largest head of a request: its line and headers, in bytes.",
    )
    max_headers: int = Field(64, ge=1, le=10_000, description="Most headers of a request.")
    bodies_bytes: int = Field(
        256 * 1024 * 1024,
        gt=0,
        description="Bytes of request bodies held at a time, by all processes; one body alone is always taken.",
    )
    drain_delay_s: float = Field(
        1.0, ge=0, description="Seconds between /ready turning 503 and the listener closing, at SIGTERM."
    )
    drain_s: int = Field(60, ge=1, description="Seconds that open requests get to finish at SIGTERM.")

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: str) -> str:
        for host in value.split():
            if HOST.fullmatch(host) is None:
                raise ValueError(
                    f"{host!r} is no host name; give names without http:// and port, with spaces between"
                )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for origin in value.split():
            if ORIGIN.fullmatch(origin) is None:
                raise ValueError(
                    f"{origin!r} is no origin; give scheme://host[:port] as browsers send it, with spaces between"
                )
        return value

    @property
    def listen_address(self) -> str:
        return self.listen or self.bind


def load_settings() -> Settings:
    """Reads `GATEWAY_*`. Raises ConfigError naming the first wrong variable, or the unmet bind rule."""
    try:
        settings = Settings()  # type: ignore[call-arg]  # the values come from the environment
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from error
    check_bind_rule(settings)
    return settings


def check_bind_rule(settings: Settings) -> None:
    """Any bind but loopback needs a key file or an explicit GATEWAY_OPEN=1; raises ConfigError naming both."""
    if is_loopback(settings.bind) or settings.api_keys_file is not None or settings.open:
        return
    raise ConfigError(
        f"GATEWAY_BIND={settings.bind} would let anybody who reaches it use the models. Either set "
        "GATEWAY_API_KEYS_FILE (make api-key writes one), or say GATEWAY_OPEN=1 if that is meant"
    )


def is_loopback(address: str) -> bool:
    """Whether `address` is reachable from this host alone; a name other than localhost is not trusted to be."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = "GATEWAY_" + "_".join(str(part) for part in problem["loc"]).upper()
    return f"{name}={problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}; see docs/configuration.md"
