"""Settings: what the code reads, the docs say, the Compose files hand on and .env.example names is one and the same."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from gateway.config.settings import Settings
from model_cache.settings import ServeSettings
from model_cache.settings import Settings as JobSettings

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
LAUNCHER = (ROOT / "docker/launcher/settings.py").read_text()
PREFIXES = ("GATEWAY_", "MODEL_CACHE_", "LAUNCHER_")
COMPOSE_ALONE = {"MODEL_CACHE_FALLBACK_DIR", "MODEL_CACHE_SERVE_BIND"}  # a mount and a published address
Environment = Mapping[str, object]


def read_by_code() -> set[str]:
    job = JobSettings.model_fields.keys() | ServeSettings.model_fields.keys()
    return {
        *(f"GATEWAY_{name}".upper() for name in Settings.model_fields),
        *(f"MODEL_CACHE_{name}".upper() for name in job),
        *re.findall(r'"(LAUNCHER_[A-Z0-9_]+)"', LAUNCHER),
    }


def documented(*, fixed: bool) -> set[str]:
    """The settings with a row. fixed: those that the shipped containers fix, else those that an operator sets."""
    sections = re.split(r"^(?=##)", CONFIGURATION, flags=re.MULTILINE)
    chosen = [one for one in sections if one.startswith("### Fixed in the shipped containers") is fixed]
    rows = re.findall(r"^\| `([A-Z0-9_]+)`", "\n".join(chosen), re.MULTILINE)
    return {name for name in rows if name.startswith(PREFIXES)}


def environments() -> Iterator[tuple[str, Environment]]:
    """What every service of the shipped Compose files gets, templates included."""
    for path in (ROOT / "compose.yaml", ROOT / "docker/worker.yaml", *ROOT.glob("docker/*/compose.yaml")):
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            yield name, service.get("environment", {})


def handed_on() -> set[str]:
    """The settings of which a service gets what the operator has set: a value, or the place of a file."""
    return {
        name
        for _, environment in environments()
        for name, value in environment.items()
        if name.startswith(PREFIXES) and re.search(rf"\$\{{{name}:?[-+]", str(value))
    }


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_docs_list_exactly_what_the_code_reads(prefix: str) -> None:
    """Every setting has one row, under the operator's settings or under those that the containers fix."""
    operators, fixed = documented(fixed=False) - COMPOSE_ALONE, documented(fixed=True)
    assert operators & fixed == set()
    known = {name for name in read_by_code() if name.startswith(prefix)}
    assert {name for name in operators | fixed if name.startswith(prefix)} == known


def test_what_an_operator_sets_reaches_the_process() -> None:
    """A variable of .env that docs/configuration.md lists is handed on by a Compose file; no fixed one is."""
    served = {"MODEL_CACHE_SERVE_TOKEN_FILE"}  # serve-weights cannot do without: the path is always given
    assert documented(fixed=False) - COMPOSE_ALONE - served == handed_on()


def test_compose_hands_on_nothing_that_no_process_reads() -> None:
    """A setting that is spelt wrong in a Compose file would be read by nobody."""
    given = {name for _, environment in environments() for name in environment if name.startswith(PREFIXES)}
    assert given - read_by_code() == set()


def test_the_example_env_names_every_setting_of_an_operator() -> None:
    """.env.example lists all that an operator may set, and nothing that would have no effect."""
    named = set(re.findall(r"^#?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name for name in named if name.startswith(PREFIXES)} == documented(fixed=False)


def test_a_file_that_is_named_is_mounted() -> None:
    """Where a service gets the place of a file inside its container, the operator's file is mounted there."""
    for path in (ROOT / "compose.yaml", ROOT / "docker/worker.yaml"):
        for service in yaml.safe_load(path.read_text())["services"].values():
            for name, value in service.get("environment", {}).items():
                if match := re.fullmatch(rf"\$\{{{name}:\+(.+)\}}", str(value)):
                    assert f"${{{name}:-/dev/null}}:{match[1]}:ro" in service["volumes"]
