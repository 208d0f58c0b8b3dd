"""What the weights job reads from a slug's card."""

from pathlib import Path

from model_cache.errors import ConfigError
from model_cache.manifest import document

_MAX_BYTES = 256 << 10  # of a card
_MAX_DEPTH = 20  # of nested values, since PyYAML recurses into them
_MAX_NUMBER = 30  # characters, since a huge number takes long to make


def trusts_code(path: Path | None) -> bool:
    """Return whether the card lets `Job` fetch code; False without a card. Raises ConfigError if it is broken."""
    if path is None:
        return False
    try:
        card = _parsed(document.content(path, _MAX_BYTES, follow_link=True))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no card: {error}") from error
    weights = card.get("weights") if isinstance(card, dict) else None
    if not isinstance(weights, dict):
        raise ConfigError(f"{path} is no card: it has no section `weights`")
    return weights.get("trust_remote_code") is True


def _parsed(content: bytes) -> object:
    """Return the value of plain YAML, checked event by event before any is built. Raises ValueError with one line."""
    import yaml  # lazily, since a complete snapshot does without it

    try:
        text, depth, resolver = content.decode(), 0, yaml.resolver.Resolver()
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise ValueError("aliases and tags are not taken")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_NUMBER:
                kind = resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
                if kind.endswith((":int", ":float")):
                    raise ValueError(f"a number has more than {_MAX_NUMBER} characters")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:  # from conversions too: 2026-13-40
        raise ValueError(" ".join(str(error).split())) from error
