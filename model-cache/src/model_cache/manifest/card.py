"""What the weights job asks of a slug's card."""

from pathlib import Path

from model_cache.errors import ConfigError
from model_cache.manifest import document

_MOST_BYTES = 256 << 10
_DEEPEST = 20
_LONGEST_NUMBER = 30


def trusts_code(path: Path | None) -> bool:
    """Whether the card says that the repository's own code is run. Raises ConfigError for a broken card."""
    if path is None:
        return False
    try:
        card = _parsed(document.content(path, _MOST_BYTES, follow_link=True))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no card: {error}") from error
    weights = card.get("weights") if isinstance(card, dict) else None
    if not isinstance(weights, dict):
        raise ConfigError(f"{path} is no card: it has no section `weights`")
    return weights.get("trust_remote_code") is True


def _parsed(content: bytes) -> object:
    """Plain YAML, looked through before anything is made of it. Raises ValueError with one line."""
    import yaml  # here, since a complete snapshot does without it

    try:
        text, depth, resolver = content.decode(), 0, yaml.resolver.Resolver()
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError(f"it is nested more than {_DEEPEST} deep")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise ValueError("aliases and tags are not taken")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_NUMBER:
                kind = resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
                if kind.endswith((":int", ":float")):
                    raise ValueError(f"a number has more than {_LONGEST_NUMBER} characters")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:  # such as a date that is none
        raise ValueError(" ".join(str(error).split())) from error
