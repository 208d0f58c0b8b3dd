"""The name under which Redis has what this gateway has used in a month. It outlives the gateway where the gateway's own
record does, in GATEWAY_STATE_DIR: else a gateway that starts again would count what it has on record a second time."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.api.errors import ConfigError

FILE: Final = "limits-gateway-id"
IDENTITY: Final = re.compile(r"[0-9a-f]{32}")


def identity_of(state_dir: Path, fresh: str) -> str:
    """Return the name in the state directory, where `fresh` becomes it if there is none; `fresh` itself if nothing can
    be written there: then there is no record either. Raises ConfigError."""
    path = state_dir / FILE
    with suppress(OSError):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # the record makes it too, but later
    found = read_identity(path) if path.exists() else ""
    if not found:
        with suppress(OSError):
            path.write_text(fresh)
    return found or fresh


def read_identity(path: Path) -> str:
    """Return the name in a file, empty if the host went down while it was written. Raises ConfigError."""
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: give it to uid 10001, or remove it") from error
    if found and IDENTITY.fullmatch(found) is None:
        raise ConfigError(
            f"{path} does not hold the 32 hexadecimal digits that the gateway writes: remove it"
        )
    return found
