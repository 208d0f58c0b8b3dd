"""Writes a card as text for people. Pure."""

from collections.abc import Iterator

from cards.card import Card, GpuNeeds
from cards.validation import gigabytes, kind_suffix


def lines(card: Card) -> Iterator[str]:
    """Yield the lines of `cards show`: one for each fact."""
    weights = card.weights
    yield card.slug
    yield _row("weights", f"{weights.repo}, {gigabytes(weights.bytes)}, {weights.licence}")
    yield _row("classes", ", ".join(weights.architectures))
    yield _row("format", weights.format)
    yield from _gpus(card.gpus) if card.gpus else [_row("GPUs", "none: it runs on the CPU")]
    yield _row("context", f"{card.context} tokens")
    yield _row("vLLM", card.vllm)
    for proof in card.proven:
        where = f", {proof.gpus}" if proof.gpus else ""
        yield _row("proven", f"{proof.date}, vLLM {proof.vllm}{where}: {proof.how}")
    if card.not_proven:
        yield _row("not proven", card.not_proven)


def _gpus(gpus: GpuNeeds) -> Iterator[str]:
    """Yield the rows about GPUs; the first layout is the one that is served."""
    least = f"{gpus.count} of at least {gigabytes(gpus.memory_bytes)}"
    yield _row("GPUs", f"{least}{kind_suffix(gpus)}, driver {gpus.driver} or newer")
    served, *others = map(str, gpus.layouts)
    yield _row("layouts", ", ".join([f"{served} (served)", *others]))
    yield _row("because", gpus.layouts_because)


def _row(name: str, said: str) -> str:
    """Return a line with the name in a column of its own; line breaks in a card's text become spaces."""
    return f"  {name:<11} {' '.join(said.split())}"
