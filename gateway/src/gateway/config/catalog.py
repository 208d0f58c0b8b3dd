"""Cards: the declared facts of every slug, read from docker/<slug>/, and the model names that clients may send."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream

from gateway.api.errors import ConfigError
from gateway.config import yaml_file

SUSPECT_S, DOWN_S = 60.0, 180.0  # without progress, where a card says nothing else
MAX_PROGRESS_S = 10**9  # of these two: keeps out YAML's .inf and typing errors
# Reasoning parsers with which vLLM 0.32, asked for usage in each chunk, counts the reasoning among all tokens so far
# each time: a long answer would take it a millisecond a chunk.
COUNTING_ANEW = frozenset({
    "cohere_command3", "cohere_command4", "deepseek_r1", "deepseek_v3", "ernie45", "holo2", "hy_v3", "hy_v4", "inkling",
    "kimi_k3", "minimax_m3", "step3",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """The facts of one slug that the gateway uses."""

    slug: str
    names: tuple[str, ...]
    weights_repo: str
    reasons: bool = False  # vLLM tells its reasoning apart from its answer
    suspect_s: float = SUSPECT_S  # without progress, while requests run
    down_s: float = DOWN_S
    images: bool = False  # it takes images
    media_domains: frozenset[str] = frozenset()  # from which its workers may fetch media
    context: int | None = None  # tokens that are served, if the card says so
    images_per_prompt: int | None = None
    parsers: Mapping[str, str] = field(default_factory=dict, hash=False)  # of `reasoning` and `tools`

    @property
    def counts_anew(self) -> bool:
        """Return whether its workers are not to be asked for usage in each chunk of a stream (COUNTING_ANEW)."""
        return self.parsers.get("reasoning") in COUNTING_ANEW

    @property
    def owner(self) -> str:
        """Return `owned_by` of the model list: the organisation in the name of the weights' repository."""
        return self.weights_repo.partition("/")[0]

    @property
    def start_command(self) -> str:
        """Return what an operator types to start the slug, for the error of a model that nobody started."""
        return f"docker compose up -d {self.slug}"


@dataclass(frozen=True)
class Catalog:
    """All cards, and for each served model name the cards that serve it: several slugs of one name are one pool."""

    cards: tuple[Card, ...]
    by_name: Mapping[str, tuple[Card, ...]]

    def resolve(self, model: str) -> tuple[Card, ...]:
        """Return the cards that serve `model`; empty if no card does, by which an unknown model is told."""
        return self.by_name.get(model, ())

    def same_as(self, model: str) -> list[str]:
        """Return the names that are served by the same cards as `model`, including itself, for /v1/models to list."""
        cards = self.resolve(model)
        return [name for name, others in self.by_name.items() if others == cards]

    @cached_property
    def by_slug(self) -> Mapping[str, Card]:
        """Return the cards by slug: computed once, since the end of each request asks for one."""
        return {card.slug: card for card in self.cards}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.by_name)

    @property
    def counting_anew(self) -> frozenset[str]:
        """Return the models of which a worker is not to be asked for usage in each chunk (`Card.counts_anew`)."""
        return frozenset(
            name for name, cards in self.by_name.items() if any(card.counts_anew for card in cards)
        )


def load_catalog(directory: Path) -> Catalog:
    """Read every `<slug>/` below `directory` that has a card. Raises ConfigError with the file and what it lacks."""
    if not directory.is_dir():
        raise ConfigError(
            f"GATEWAY_CARDS_DIR={directory} is no directory: mount the repository's docker/ there"
        )
    cards = tuple(load_card(path.parent) for path in sorted(directory.glob("*/card.yaml")))
    if not cards:
        raise ConfigError(
            f"GATEWAY_CARDS_DIR={directory} holds no <slug>/card.yaml: mount the repository's docker/ there"
        )
    return Catalog(cards, group_by_name(cards))


def load_card(directory: Path) -> Card:
    """Read one slug's directory. Raises ConfigError with the file and the value it lacks."""
    facts = _mapping(directory / "card.yaml")
    env = parse_env(yaml_file.read(directory / "model.env"), directory / "model.env")
    slug = facts.get("slug")
    if slug != directory.name:
        raise ConfigError(
            f"{directory}/card.yaml: slug is {slug!r}; set it to the directory's name, {directory.name!r}"
        )
    names = tuple(_required(env, "SERVED_MODEL_NAMES", directory).split())
    repo, serving = _required(env, "WEIGHTS_REPO", directory), section(facts, "serving")
    images, parsers = serving.get("images"), section(serving, "parsers")
    suspect_s, down_s = progress_limits(facts, directory)
    return Card(
        directory.name, names, repo, bool(parsers.get("reasoning")), suspect_s, down_s, bool(images),
        frozenset(map(str, serving.get("media_domains") or ())),
        context=count(serving, "context", directory),
        images_per_prompt=count(section(serving, "images"), "per_prompt", directory),
        parsers={kind: str(parser) for kind, parser in parsers.items() if parser},
    )  # fmt: skip


def progress_limits(facts: Mapping[str, object], directory: Path) -> tuple[float, float]:
    """Read `progress: {suspect_s, down_s}`: seconds without progress until suspect, and down. Raises ConfigError."""
    limits = facts.get("progress", {})
    if not isinstance(limits, dict) or not limits.keys() <= {"suspect_s", "down_s"}:
        raise ConfigError(f"{directory}/card.yaml: progress takes suspect_s and down_s, in seconds")
    suspect_s, down_s = limits.get("suspect_s", SUSPECT_S), limits.get("down_s", DOWN_S)
    if not (_is_number(suspect_s) and _is_number(down_s) and 0 < suspect_s <= down_s <= MAX_PROGRESS_S):
        raise ConfigError(
            f"{directory}/card.yaml: progress must have 0 < suspect_s <= down_s <= {MAX_PROGRESS_S}; "
            f"it has {suspect_s!r:.80} and {down_s!r:.80}"
        )
    return float(suspect_s), float(down_s)


def _is_number(value: object) -> bool:
    """Return whether a card's value is a number: Python counts `True` as an int, but a card's `true` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def section(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the card's mapping `name`; empty if there is none, or no mapping, which docker/cards refuses."""
    part = facts.get(name)
    return part if isinstance(part, dict) else {}


def count(facts: Mapping[str, Any], name: str, directory: Path) -> int | None:
    """Return the whole number above 0 that a card has as `name`; None if it has none. Raises ConfigError."""
    value = facts.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ConfigError(f"{directory}/card.yaml: {name} is {value!r:.80}; set it to a whole number above 0")


def group_by_name(cards: tuple[Card, ...]) -> dict[str, tuple[Card, ...]]:
    """Return for each served name the cards that have it, in the cards' order: `Catalog.by_name`."""
    grouped: dict[str, tuple[Card, ...]] = {}
    for card in cards:
        for name in card.names:
            grouped[name] = (*grouped.get(name, ()), card)
    return grouped


def parse_env(text: str, path: Path) -> dict[str, str]:
    """Parse the `KEY=value` lines of an env file such as model.env. Raises ConfigError that names the line."""
    values: dict[str, str] = {}
    for key, value, original, is_wrong in parse_stream(io.StringIO(text)):
        if is_wrong or (key is not None and value is None):
            raise ConfigError(f"{path}:{original.line}: {original.string.strip()!r} is not KEY=value")
        if key is not None and value is not None:
            values[key] = value
    return values


def _required(env: Mapping[str, str], key: str, directory: Path) -> str:
    """Return a value of a slug's model.env. Raises ConfigError if it is missing or empty."""
    value = env.get(key, "").strip()
    if not value:
        raise ConfigError(
            f"{directory}/model.env: {key} is missing; docker/README.md lists what a model must declare"
        )
    return value


def _mapping(path: Path) -> Mapping[str, object]:
    """Read a card, which takes no YAML aliases. Raises ConfigError if it is not YAML, or not a mapping."""
    loaded = yaml_file.parse(yaml_file.read(path), path, yaml_file.Plain)
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must be a mapping of facts")
    return loaded
