"""Where the Redis of the limits is, from GATEWAY_LIMITS_REDIS_URL and the file with its password. Neither a password
nor a user's name gets into errors, log or `docker inspect`: an address with a password is refused."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from gateway.api.errors import ConfigError

URL: Final = "GATEWAY_LIMITS_REDIS_URL"
PASSWORD_FILE: Final = "GATEWAY_LIMITS_REDIS_PASSWORD_FILE"  # noqa: S105  # the setting's name
FORMS: Final = (
    "redis://host:6379/0, rediss://host:6379/0?ssl_ca_certs=/path/of/ca.pem or unix:///path/of/socket?db=0"
)
PORT: Final = 6379
MAX_BYTES: Final = 4096  # of a password's file


@dataclass(frozen=True, slots=True)
class Address:
    """A Redis, and how to be let in. name: the address for people. socket: path of its socket, else None. ca_file: of
    the authority that signed its certificate; None: those that the system trusts."""

    name: str
    host: str = ""
    port: int = PORT
    socket: str | None = None
    db: int = 0
    tls: bool = False
    ca_file: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def address_of(url: str, password_file: Path | None) -> Address:
    """Return the Redis that the settings name. Raises ConfigError, which repeats nothing of the address: it may have a
    secret in the wrong place."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError as error:
        raise ConfigError(f"{URL} is no address: write {FORMS}") from error
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.password is not None or "password" in options:
        raise ConfigError(
            f"{URL} holds a password, which `docker inspect` would show: write it into a file, and name that in "
            f"{PASSWORD_FILE}"
        )
    user = unquote(parts.username) if parts.username else None
    password = read_password(password_file) if password_file is not None else None
    if user is not None and password is None:
        raise ConfigError(
            f"{URL} names a user: write its password into a file, and name that in {PASSWORD_FILE}"
        )
    if parts.scheme == "unix":
        return socket_address(parts, options, user, password)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ConfigError(f"{URL} is no address of a Redis: write {FORMS}")
    tls = parts.scheme == "rediss"
    check_options(options, ("db", "ssl_ca_certs") if tls else ("db",))
    if parts.path.strip("/"):
        options["db"] = parts.path.strip("/")
    return Address(
        f"{parts.scheme}://{host_of(parts.hostname)}:{port}", parts.hostname, port, db=number_of(options),
        tls=tls, ca_file=readable(options.get("ssl_ca_certs")), user=user, password=password,
    )  # fmt: skip


def socket_address(
    parts: SplitResult, options: dict[str, str], user: str | None, password: str | None
) -> Address:
    """Return the address of a Redis that listens on a Unix socket. Raises ConfigError."""
    check_options(options, ("db",))
    path = unquote(parts.path)
    if parts.hostname or not path.startswith("/"):
        raise ConfigError(f"{URL} has no absolute path: write unix:///path/of/socket, with three slashes")
    return Address(f"unix://{path}", socket=path, db=number_of(options), user=user, password=password)


def check_options(options: dict[str, str], known: tuple[str, ...]) -> None:
    """Raise ConfigError for the first option that an address of this kind does not have."""
    for name in options:
        if name not in known:
            raise ConfigError(f"{URL} has an option that is not one of {', '.join(known)}: write {FORMS}")


def number_of(options: dict[str, str]) -> int:
    """Return the database's number, 0 if none is given. Raises ConfigError."""
    text = options.get("db", "0")
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"{URL}: the database is a number, such as 0 in {FORMS}")
    return int(text)


def host_of(host: str) -> str:
    """Return a host as an address has it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def readable(path: str | None) -> str | None:
    """Return the path of the authority's certificate. Raises ConfigError if it cannot be read."""
    if path is not None:
        read_file(Path(path), f"ssl_ca_certs of {URL}", "name a PEM file that the gateway may read")
    return path


def read_password(path: Path) -> str:
    """Return the password in a file, without the end of its line. Raises ConfigError."""
    advice = "name a file that holds the password of Redis and nothing else"
    text = read_file(path, PASSWORD_FILE, advice).strip("\r\n")
    if not text or "\n" in text or len(text) > MAX_BYTES:
        raise ConfigError(f"{PASSWORD_FILE}={path} does not hold one line: {advice}")
    return text


def read_file(path: Path, setting: str, advice: str) -> str:
    """Return the text of a file that a setting names. Raises ConfigError."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{setting}={path} cannot be read: {why}; {advice}") from error
