"""Layouts: how a model is spread over GPUs, and which spreads its shape allows. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """`tensor_parallel` GPUs share each layer; with `expert_parallel` each of them has whole experts."""

    tensor_parallel: int
    expert_parallel: bool

    def __str__(self) -> str:
        """Return it as arguments of `make check-card`."""
        return f"TP={self.tensor_parallel} EP={int(self.expert_parallel)}"


@dataclass(frozen=True)
class Experts:
    """A model's experts. `intermediate` is the width of one; a GPU's part of it must be a multiple of `block`."""

    count: int
    intermediate: int
    block: int

    def objections(self, ways: int) -> Iterator[str]:
        """Yield why an expert cannot be cut into `ways` parts, as EP=0 asks for; nothing if it can."""
        if self.intermediate % ways:
            yield f"experts {self.intermediate} wide cannot be cut evenly over {ways} GPUs"
        elif (part := self.intermediate // ways) % self.block:
            yield (
                f"experts {self.intermediate} wide cut over {ways} GPUs are {part} wide each, "
                f"and {part} is not a multiple of the quantisation block of {self.block}"
            )


@dataclass(frozen=True)
class Shape:
    """The numbers of a model's architecture on which the possible layouts depend."""

    heads: int
    kv_heads: int
    experts: Experts | None

    def objections(self, layout: Layout) -> Iterator[str]:
        """Yield why vLLM would refuse the layout, of a card or of `make check-card`; nothing if it would not."""
        ways = layout.tensor_parallel
        if self.heads % ways:
            yield f"{self.heads} attention heads cannot be shared out evenly over {ways} GPUs"
        if self.kv_heads % ways and ways % self.kv_heads:
            yield f"{self.kv_heads} key-value heads can be neither shared out nor repeated evenly over {ways} GPUs"
        if layout.expert_parallel:
            if self.experts is None:
                yield "it has no experts to spread: use EP=0"
        elif self.experts:
            yield from self.experts.objections(ways)
