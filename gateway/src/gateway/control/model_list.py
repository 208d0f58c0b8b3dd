"""What /v1/models tells of a model: what its workers report, in vLLM's form, and what its cards say. Pure. A name may
stand for several cards and workers, and a client cannot know which will answer: so only what holds for all is told."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from gateway.config.catalog import Card
from gateway.fleet.workers import Served, Worker

Json = dict[str, Any]
T = TypeVar("T")


def describe_model(
    name: str, created: int, model: str,
    cards: Sequence[Card], workers: Iterable[Worker], names: Iterable[str],
) -> Json:  # fmt: skip
    """Return OpenAI's model object with vLLM's and the cards' fields. model: its name at the workers, where `name` is
    an alias; created: Unix seconds; names: all names of the model."""
    served = [worker.served[model] for worker in workers if model in worker.served]
    context = least(card.context for card in cards)
    first = served[0] if served else Served()
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": cards[0].owner,
        "root": first.root,
        "parent": first.parent,
        "max_model_len": least(one.max_model_len for one in served) or context,  # if no worker told it
        "context": context,
        "images": images_of(cards),
        "parsers": {
            kind: common(card.parsers.get(kind) for card in cards) for kind in ("reasoning", "tools")
        },
        "aliases": [other for other in names if other != name],
    }


def images_of(cards: Sequence[Card]) -> Json | None:
    """Return how many images a prompt may have; None if one of the cards takes none."""
    if not all(card.images for card in cards):
        return None
    return {"per_prompt": least(card.images_per_prompt for card in cards)}


def least(numbers: Iterable[int | None]) -> int | None:
    """Return the least of the numbers that are known, which holds for all; None if none is."""
    return min((number for number in numbers if number is not None), default=None)


def common(values: Iterable[T | None]) -> T | None:
    """Return the value that all (at least one) share, or None where they differ."""
    first, *others = values
    return first if all(one == first for one in others) else None
