"""What clients are told of a model holds for all cards and workers that a request of theirs may come to."""

from typing import Any

from gateway.config.catalog import Card
from gateway.control.model_list import describe_model
from gateway.discovery.probes import read_models
from gateway.fleet.workers import Served, Worker

CARD = Card("a", ("m", "n"), "owner/m", context=8192, images=True, images_per_prompt=8,
            parsers={"reasoning": "qwen3", "tools": "hermes"})  # fmt: skip
OTHER = Card("b", ("m",), "else/m", context=4096, parsers={"reasoning": "qwen3", "tools": "step3p5"})


def worker(**served: Served) -> Worker:
    return Worker("a", "10.0.0.1", 8000, served=served)


def described(*cards: Card, workers: tuple[Worker, ...] = (), name: str = "m") -> dict[str, Any]:
    return describe_model(name, 7, "m", cards, workers, ["m", "n", "fast"])


def test_a_model_is_openais_object_with_vllms_fields_and_the_cards() -> None:
    """Every field is always there."""
    said = worker(m=Served("/weights/m", None, 2048))
    assert described(CARD, workers=(said,)) == {
        "id": "m", "object": "model", "created": 7, "owned_by": "owner", "root": "/weights/m", "parent": None,
        "max_model_len": 2048, "context": 8192, "images": {"per_prompt": 8},
        "parsers": {"reasoning": "qwen3", "tools": "hermes"}, "aliases": ["n", "fast"],
    }  # fmt: skip


def test_an_alias_is_told_like_its_model() -> None:
    """With the model among its other names."""
    said = worker(m=Served("/weights/m", None, 2048))
    alias, model = described(CARD, workers=(said,), name="fast"), described(CARD, workers=(said,))
    assert alias.pop("aliases") == ["m", "n"]
    assert alias.pop("id") == "fast"
    assert alias.items() <= model.items()


def test_the_card_speaks_where_no_worker_does() -> None:
    """A worker that says no length, or none at all: the card's context is what there is."""
    assert described(CARD)["max_model_len"] == 8192
    assert described(CARD, workers=(worker(m=Served()),))["max_model_len"] == 8192
    assert described(CARD, workers=(worker(n=Served(max_model_len=1)),))["max_model_len"] == 8192
    bare = described(Card("a", ("m",), "o/m"))
    assert (bare["max_model_len"], bare["context"], bare["images"]) == (None, None, None)
    assert bare["parsers"] == {"reasoning": None, "tools": None}


def test_of_several_cards_and_workers_the_least_is_told() -> None:
    """A client cannot know which of them will answer."""
    workers = worker(m=Served("/weights/x", None, 8192)), worker(m=Served("/weights/y", None, 4096))
    told = described(CARD, OTHER, workers=workers)
    assert (told["max_model_len"], told["context"], told["images"]) == (4096, 4096, None)
    assert told["parsers"] == {"reasoning": "qwen3", "tools": None}


def test_what_a_worker_says_is_taken_by_its_kind() -> None:
    """What vLLM would not say counts as not said."""
    body = b'{"data": [{"id": "m", "root": 1, "parent": [], "max_model_len": "8"}, {"id": "n", "max_model_len": true}]}'
    assert read_models(body) == {"m": Served(), "n": Served()}
