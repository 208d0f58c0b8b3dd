"""What the weights job asks of a slug's card."""

from pathlib import Path
from typing import Any

from model_cache.errors import ConfigError


def trusts_code(path: Path | None) -> bool:
    """Whether the card says that the repository's own code is run. Raises ConfigError for a broken card."""
    return path is not None and path.exists() and _weights(path).get("trust_remote_code") is True


def _weights(path: Path) -> dict[str, Any]:
    import yaml  # here, since a complete snapshot does without it

    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["weights"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no card: {' '.join(str(error).split())}") from error
