"""The table of docs/security.md: on which networks a service is, which TCP ports it opens, and what is published."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/security.md"


@dataclass(frozen=True, slots=True)
class Listener:
    """One row. published: address and port, each as text; the address may be the name of a setting."""

    service: str
    networks: frozenset[str]
    ports: frozenset[int]
    published: frozenset[tuple[str, int]]


def listeners() -> dict[str, Listener]:
    """The table's rows by service; those of `SLUG`, `SLUG-weights` and `SLUG-check` stand for every slug's."""
    _, _, section = PAGE.read_text().partition("## What listens, and where\n")
    rows = re.findall(
        r"^\| `([\w-]+)`[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", section.partition("\n## ")[0], re.MULTILINE
    )
    return {
        service: Listener(
            service,
            frozenset(re.findall(r"`(\w+)`", networks)),
            frozenset(int(port) for port in re.findall(r"(?:^|, )\s*(\d+)\b", ports)),
            frozenset((address, int(port)) for address, port in re.findall(r"`([\w.]+)`:(\d+)", published)),
        )
        for service, networks, ports, published in rows
    }


def row_of(service: str, slugs: set[str]) -> str:
    """The name of the row that tells of a Compose service."""
    for slug in slugs:
        if service in (slug, f"{slug}-weights", f"{slug}-check"):
            return "SLUG" + service.removeprefix(slug)
    return service
