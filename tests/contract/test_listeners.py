"""The Compose files put services where docs/security.md says, and nowhere else; e2e scans what runs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.listeners import listeners, row_of

ROOT = Path(__file__).resolve().parents[2]
SLUGS = {path.parent.name for path in ROOT.glob("docker/*/compose.yaml")}
TEMPLATES = yaml.safe_load((ROOT / "docker/worker.yaml").read_text())["services"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
STATE = "gateway-state"


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every service of the shipped files, with what it extends."""
    yield from COMPOSE["services"].items()
    for slug in sorted(SLUGS):
        found = yaml.safe_load((ROOT / "docker" / slug / "compose.yaml").read_text())["services"]
        for name, service in found.items():
            yield name, {**TEMPLATES[service["extends"]["service"]], **service}


ALL = dict(services())


def published(service: dict[str, Any]) -> set[tuple[str, int]]:
    """Addresses, or the settings that name them, and ports on the host."""
    mappings = [re.sub(r"\$\{(\w+):-127\.0\.0\.1\}", r"\1", mapping) for mapping in service.get("ports", [])]
    return {(address, int(port)) for address, port, _ in (mapping.split(":") for mapping in mappings)}


@pytest.mark.parametrize("name", ALL)
def test_a_service_is_on_the_networks_of_its_row(name: str) -> None:
    """And publishes what that says."""
    service, row = ALL[name], listeners()[row_of(name, SLUGS)]
    if service.get("network_mode") == "none":
        assert not row.networks
    else:
        assert set(service["networks"]) == row.networks
    assert published(service) == row.published
    assert "network_mode" not in service or service["network_mode"] == "none"


def test_the_table_has_no_other_row() -> None:
    """One that a service no longer has would be believed."""
    assert listeners().keys() == {row_of(name, SLUGS) for name in ALL}


def test_every_network_is_in_the_table() -> None:
    """The scan takes the networks from here."""
    assert set(COMPOSE["networks"]) == {one for row in listeners().values() for one in row.networks}


def test_the_gateway_alone_has_its_state() -> None:
    """Who used what is nobody else's to read or write."""
    having = {
        name for name, service in ALL.items() if any(STATE in str(one) for one in service.get("volumes", []))
    }
    assert having == {"gateway"}
