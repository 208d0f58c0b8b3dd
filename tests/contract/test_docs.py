"""Docs that a program can check: every metric, error code, target and link is what the code says it is."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.api import errors
from gateway.body.budget import BodyBudget
from gateway.config.catalog import Catalog
from gateway.fleet.fleet import Fleet
from gateway.proxy.queue import Queues
from gateway.telemetry.logs import EventLog
from gateway.telemetry.metrics import Metrics
from model_cache.telemetry.progress import Progress
from model_cache.telemetry.progress_server import ProgressCollector

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
LAUNCHER_PAGE = (ROOT / "docker/launcher/status/page.py").read_text()


def test_every_metric_has_a_row() -> None:
    """docs/metrics.md lists exactly the metrics of gateway, weights job and launcher."""
    own = Metrics(Fleet.of(Catalog((), {})), Queues(), EventLog(), BodyBudget(1000)).exposition().decode()
    assert metric_rows("gateway_") == names(text_string_to_metric_families(own))
    assert metric_rows("launcher_") == set(re.findall(r'"(launcher_\w+)"', LAUNCHER_PAGE))
    assert metric_rows("model_cache_") == names(ProgressCollector(Progress("slug", "owner/name")).collect())


def names(families: Iterable[Metric]) -> set[str]:
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def metric_rows(prefix: str) -> set[str]:
    return set(re.findall(rf"^\| `({prefix}\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))


def test_every_error_code_has_a_row() -> None:
    """docs/operations.md says of every error code what causes it and what to do."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.GatewayError)
    ]
    codes = {kind.code for kind in kinds if kind is not errors.GatewayError}
    rows = set(re.findall(r"^\| `(\w+)` \|", OPERATIONS, re.MULTILINE))
    assert codes <= rows


def test_every_make_target_named_in_the_docs_exists() -> None:
    """No page tells a reader to run a target that is not there."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (page.name, name)
        for page in pages()
        for name in re.findall(r"(?:`|^\$ )make ([a-z][a-z0-9-]+)", page.read_text(), re.MULTILINE)
    }
    assert named
    assert {(page, name) for page, name in named if name not in targets} == set()


def test_every_link_in_the_docs_leads_somewhere() -> None:
    """Relative links point at files that exist, and at headings that such a page has."""
    broken = {
        (page.relative_to(ROOT).as_posix(), link)
        for page in pages()
        for link in links_of(page.read_text())
        if not link.startswith(("https://", "http://")) and not leads_somewhere(page, link)
    }
    assert broken == set()


def pages() -> list[Path]:
    """All that people read."""
    found = (ROOT.glob(pattern) for pattern in ("*.md", "docs/**/*.md", "docker/**/*.md", "examples/*.md"))
    return [page for paths in found for page in paths]


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors_of(target.read_text()))


def anchors_of(text: str) -> set[str]:
    """Those that GitHub makes of headings, and those that the page sets itself."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - {"out"}
ROOMS = {path.parent.name for path in ROOT.glob("gateway/src/gateway/*/__init__.py")}
PACKAGES = {"launcher": "docker/launcher", "model_cache": "model-cache/src/model_cache"}
NOT_IN_GIT = {"docker/*/weights.lock", "docker/*.override.yaml"}  # an operator makes them
PATH = re.compile(r"(?<![\w./-])[\w.<>-]+(?:/[\w.<>-]+)*/?")


def test_every_path_that_the_docs_name_exists() -> None:
    """From the root, or from the gateway's package where rooms are spoken of. The changelog names the past, too."""
    wrong = {
        (page.relative_to(ROOT).as_posix(), path)
        for page in pages()
        if page.name != "CHANGELOG.md"
        for path in paths_in(page.read_text())
        if path not in NOT_IN_GIT and not any(ROOT.glob(path))
    }
    assert wrong == set()


def paths_in(text: str) -> Iterator[str]:
    """As patterns: `<slug>`, `SLUG` and the like stand for any name."""
    for word in PATH.findall(text):
        first, slash, rest = word.partition("/")
        path = re.sub(r"<\w+>|\bSLUG\b|\bmy-model\b", "*", word).rstrip("/.")
        if slash and rest and first in FOLDERS:
            yield path
        elif slash and rest.endswith(".py") and first in ROOMS:
            yield f"gateway/src/gateway/{path}"
    for package, name in re.findall(r"`(launcher|model_cache)\.([\w.]+)`", text):
        yield f"{PACKAGES[package]}/{name.replace('.', '/')}*"


def test_every_function_that_the_docs_name_exists() -> None:
    """`path/module.py`, `Class.function`: both are in that module."""
    named = [(file, name) for page in pages() for file, name in functions_in(page.read_text())]
    assert named
    assert [(file, name) for file, name in named if not has(ROOT / file, name)] == []


def functions_in(text: str) -> Iterator[tuple[str, str]]:
    """Of our own modules; docs/network.md names those of others too."""
    for path, name in re.findall(r"`([\w/-]+\.py)`,\s`(\w+\.\w+)`", text):
        for file in paths_in(path):
            yield file, name


def has(file: Path, name: str) -> bool:
    kind, _, function = name.partition(".")
    text = file.read_text()
    return re.search(rf"^class {kind}\b", text, re.MULTILINE) is not None and f"def {function}(" in text


def test_every_test_of_reliability_is_there() -> None:
    """Whatever docs/reliability.md promises has a test of that name, in the file that the row links to."""
    text = (ROOT / "docs/reliability.md").read_text()
    links = re.findall(r"\]\(\.\./([^)]+\.py)\) ((?:`test_\w+`(?:, )?)+)", text)
    named = [(path, name) for path, names in links for name in re.findall(r"\w+", names)]
    assert len(named) == len(re.findall(r"`test_\w+`", text))
    assert [one for one in named if f"def {one[1]}(" not in (ROOT / one[0]).read_text()] == []


def test_the_example_env_names_settings_that_are_read() -> None:
    """Every variable of .env.example is used by a Compose file, or by Compose itself, and explained in the docs."""
    names = set(re.findall(r"^#?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    files = [ROOT / "compose.yaml", *ROOT.glob("docker/*.yaml"), *ROOT.glob("docker/*/compose.yaml")]
    text = "\n".join(path.read_text() for path in files)
    assert names
    assert {name for name in names if f"${{{name}" not in text} <= {"COMPOSE_PROFILES"}
    assert {name for name in names if f"`{name}`" not in CONFIGURATION} == set()


README, CHINESE = (ROOT / "README.md").read_text(), (ROOT / "README.zh-CN.md").read_text()
FIGURE = re.compile(r"\d+(?:[.,]\d+)*")


def test_the_chinese_readme_has_every_command() -> None:
    """The code blocks are the same but for comments, labels and what is said to the model."""
    assert code_of(CHINESE) == code_of(README)


def test_the_chinese_readme_has_every_table_row() -> None:
    """Row by row the same names, links and figures: a row that is missing, or a figure that was changed, fails."""
    assert rows_of(CHINESE) == rows_of(README)


def test_the_chinese_readme_has_every_figure_and_link() -> None:
    """Outside of the tables, too."""
    figures = Counter(FIGURE.findall(README)) - Counter(FIGURE.findall(CHINESE))
    links = set(links_of(README)) - set(links_of(CHINESE)) - {"README.zh-CN.md"}
    assert figures == Counter()
    assert {link for link in links if not link.startswith("#")} == set()


def code_of(text: str) -> list[str]:
    """The lines of its code blocks, without what is translated."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [(kind, line) for kind, block in blocks for line in (kind, *block.splitlines())]
    return [untranslated(kind, line) for kind, line in lines]


def untranslated(kind: str, line: str) -> str:
    """A line without comment, label or message."""
    if kind == "mermaid":
        return re.sub(r'\|[^|]*\||"[^"]*"', "", line).rstrip()
    line = re.sub(r'"content": "[^"]*"', "", line)
    return re.sub(r"\s+# .*", "", line) if line.startswith("$ ") else line


def rows_of(text: str) -> list[tuple[list[str], list[str], list[str]]]:
    """Of every row of its tables what is the same in any language."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [(re.findall(r"`[^`]+`", row), links_of(row), FIGURE.findall(row)) for row in rows]


def links_of(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)
