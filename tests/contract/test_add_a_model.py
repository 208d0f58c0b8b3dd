"""A model is one directory and one include line: docker/README.md's steps, carried out in a copy of the repository.

The commands and the line are taken out of that page. Every slug is copied once, as any may be the nearest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.api.errors import ConfigError
from gateway.config.catalog import Catalog, load_catalog
from gateway.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "step3p5-fp8", "my-model"  # the page's example
SLUGS = sorted(path.parent.name for path in ROOT.glob("docker/*/card.yaml"))
COPIES = {NEW: OLD} | {f"copy-of-{at}": slug for at, slug in enumerate(SLUGS) if slug != OLD}
THIS = "tests/contract/test_add_a_model.py"

each_copy = pytest.mark.parametrize("slug", COPIES)


def capitals(slug: str) -> str:
    return slug.upper().replace("-", "_")


@dataclass(frozen=True)
class Page:
    """The commands and the include line of the page, for any two slugs."""

    copy: str
    rename: str
    include: str

    @classmethod
    def read(cls, new: str, old: str) -> Page:
        steps = (ROOT / "docker/README.md").read_text().split("## Add a model\n")[1].split("\n## ")[0]
        for word, slug in ((OLD, old), (NEW, new)):
            steps = steps.replace(word, slug).replace(capitals(word), capitals(slug))
        return cls(*(one(steps, start) for start in ("cp ", "grep ", "- {path: ")))


def one(steps: str, start: str) -> str:
    """The piece of code that begins so."""
    found = re.findall(rf"`({re.escape(start)}[^`]+)`", steps)
    assert len(found) == 1, f"docker/README.md, 'Add a model', must have one `{start}...`: {found}"
    return str(found[0])


@dataclass(frozen=True)
class Tree:
    """A copy of the repository, where steps can be carried out or forgotten."""

    root: Path

    def run(self, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """A program in the copy, with the copy's own code and no settings of this machine."""
        folders = (self.root / name for name in ("gateway/src", "model-cache/src", "docker"))
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = kept | {"PYTHONPATH": os.pathsep.join(map(str, folders))} | extra
        return subprocess.run(
            words, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def shell(self, command: str) -> None:
        done = self.run("bash", "-euo", "pipefail", "-c", command)
        assert (done.returncode, done.stderr) == (0, ""), command

    def edit(self, slug: str) -> None:
        """Step 3, done by a person: another repository, other names."""
        directory = self.root / "docker" / slug
        replace(directory / "card.yaml", r"\brepo: \S+", f"repo: someone/{slug}")
        replace(directory / "model.env", r"WEIGHTS_REPO=.*", f"WEIGHTS_REPO=someone/{slug}")
        replace(
            directory / "model.env", r"SERVED_MODEL_NAMES=.*", f'SERVED_MODEL_NAMES="{slug} alias-{slug}"'
        )

    def include(self, line: str) -> None:
        replace(self.root / "compose.yaml", r"include:\n", f"include:\n  {line}\n")

    def watch_gpus(self, new: str, old: str) -> None:
        """Step 4's second half: the exporter starts with the new slug, as with the old one."""
        compose = self.root / "compose.yaml"
        (listed,) = re.findall(r"profiles: \[(\S+, [^\]]+)\]", compose.read_text())
        if old in listed.split(", "):
            replace(compose, re.escape(listed), f"{listed}, {new}")

    def add(self, new: str, old: str) -> None:
        """All steps of the page."""
        page = Page.read(new, old)
        self.shell(page.copy)
        self.shell(page.rename)
        self.edit(new)
        self.include(page.include)
        self.watch_gpus(new, old)

    def contract(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Those of the copy's contract tests that look at every card."""
        files = sorted(self.root.glob("tests/contract/test_*.py"))
        named = [str(path) for path in files if "docker/*/card.yaml" in path.read_text()]
        return self.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, *named)

    def catalog(self) -> Catalog:
        """What the gateway reads, from where Compose mounts it."""
        mounts = yaml.safe_load((self.root / "compose.yaml").read_text())["services"]["gateway"]["volumes"]
        inside = Settings.model_fields["cards_dir"].default
        folders = [mount.split(":")[0] for mount in mounts if mount.split(":")[1] == str(inside)]
        assert len(folders) == 1
        return load_catalog(self.root / folders[0])


def replace(path: Path, pattern: str, text: str) -> None:
    """Puts `text` in the one place, or the first, where `pattern` is."""
    changed, count = re.subn(pattern, text, path.read_text(), count=1)
    assert count == 1, f"{path}: {pattern}"
    path.write_text(changed)


def copied(root: Path) -> Tree:
    """The files of git, without the twins, and with this checkout's Python environment."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file() and name != THIS and not name.startswith("tests/twins/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    (root / ".venv").symlink_to(ROOT / ".venv")
    tree = Tree(root)
    tree.shell("git init --quiet --initial-branch=main .")
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A copy in which no step was taken."""
    return copied(tmp_path / "tree")


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A copy in which every slug was copied as the page says."""
    tree = copied(tmp_path_factory.mktemp("added") / "tree")
    for new, old in COPIES.items():
        tree.add(new, old)
    return tree


@pytest.fixture(scope="module")
def services(added: Tree) -> dict[str, Any]:
    """Every service as Compose itself would run it, with one slug's vLLM replaced."""
    if shutil.which("docker") is None or added.run("docker", "compose", "version").returncode:
        pytest.skip("Docker Compose is not installed")
    words = ("docker", "compose", "--profile", "*", "config", "--format", "json")
    done = added.run(*words, **{f"{capitals(NEW)}_VLLM_REQUIREMENT": "another"})
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_the_contract_holds_for_every_new_slug(added: Tree) -> None:
    """The copy's contract tests pass, and whatever looks at a slug looks at the one copied from it too."""
    done = added.contract("-rp", "-k", "not installed and not refuse")
    assert done.returncode == 0, done.stdout
    for new, old in COPIES.items():
        assert looked_at(done.stdout, new) == looked_at(done.stdout, old) != set()


def looked_at(summary: str, slug: str) -> set[str]:
    """The tests that passed for a slug."""
    return set(re.findall(rf"^PASSED (\S+)\[{slug}\]$", summary, re.MULTILINE))


@each_copy
def test_compose_runs_the_new_slug(services: dict[str, Any], slug: str) -> None:
    """Worker and jobs have the new slug's facts, and nothing of the slug they were copied from."""
    own = {name: service for name, service in services.items() if name in jobs(slug)}
    assert len(own) == len(jobs(COPIES[slug]) & set(services))
    assert own[f"{slug}-weights"]["environment"]["MODEL_CACHE_REPO"] == f"someone/{slug}"
    assert own[slug]["environment"]["LAUNCHER_SLUG"] == slug
    assert own[slug]["command"] == ["--served-model-name", slug, f"alias-{slug}"]
    assert COPIES[slug] not in json.dumps(own)


def jobs(slug: str) -> set[str]:
    return {slug, f"{slug}-weights", f"{slug}-check"}


def test_another_vllm_for_the_new_slug_is_for_no_other(services: dict[str, Any]) -> None:
    """MY_MODEL_VLLM_REQUIREMENT changes one build."""
    builds = {
        name: service["build"].get("args", {}) for name, service in services.items() if "build" in service
    }
    assert [name for name, args in builds.items() if args.get("VLLM_REQUIREMENT")] == [NEW]


@each_copy
def test_the_gateway_serves_the_new_names(added: Tree, slug: str) -> None:
    """The gateway's own catalogue resolves both names to the new card alone."""
    catalog = added.catalog()
    for name in (slug, f"alias-{slug}"):
        assert [(card.slug, card.weights_repo) for card in catalog.resolve(name)] == [
            (slug, f"someone/{slug}")
        ]


def test_a_card_can_be_shown(added: Tree) -> None:
    """`make card` runs this program."""
    done = added.run(sys.executable, "-m", "cards", "show", NEW)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()[:2]
    assert (first, "someone/my-model" in second) == (NEW, True)


def test_nothing_else_changes(added: Tree, tree: Tree) -> None:
    """Beside the new directories only compose.yaml differs, by one line for each and the exporter's profiles."""
    before, after = contents(tree.root), contents(added.root)
    new = {name for name in after if name.startswith(tuple(f"docker/{slug}/" for slug in COPIES))}
    assert {name for name in after if after[name] != before.get(name)} - new == {"compose.yaml"}
    assert len(after["compose.yaml"].splitlines()) == len(before["compose.yaml"].splitlines()) + len(COPIES)


def contents(root: Path) -> dict[str, bytes]:
    """Every file by its path, but what programs leave behind."""
    files = (path for path in root.rglob("*") if path.is_file())
    named = {str(path.relative_to(root)): path for path in files}
    kept = (name for name in named if not name.startswith(".git/") and "__pycache__" not in name)
    return {name: named[name].read_bytes() for name in kept}


def test_a_forgotten_include_line_is_named(tree: Tree) -> None:
    """The contract tests say which directory compose.yaml does not include."""
    page = Page.read(NEW, OLD)
    tree.shell(page.copy)
    tree.shell(page.rename)
    done = tree.contract("-k", f"{NEW} or included")
    assert done.returncode == 1
    assert f"compose.yaml's include has no line for these directories\nE   assert {{'{NEW}'}}" in spaced(done)


def test_an_old_slug_in_the_new_directory_is_named(tree: Tree) -> None:
    """Contract tests, gateway and `make card` name the card, what it says and what it should say."""
    page = Page.read(NEW, OLD)
    tree.shell(page.copy)
    tree.include(page.include)
    done, shown = tree.contract("-k", NEW), tree.run(sys.executable, "-m", "cards", "show", NEW)
    wanted = f"{NEW}/card.yaml: slug is '{OLD}': it must be the directory's name, '{NEW}'"
    assert (done.returncode != 0, wanted in done.stdout) == (True, True)
    assert (shown.returncode, len(shown.stderr.splitlines()), wanted in shown.stderr) == (2, 1, True)
    with pytest.raises(ConfigError, match=f"{NEW}/card.yaml: slug is '{OLD}'; set it to .* '{NEW}'"):
        tree.catalog()


def test_an_old_slug_in_capitals_is_named(tree: Tree) -> None:
    """Otherwise the old slug's setting would replace the vLLM of the new one too."""
    tree.add(NEW, OLD)
    replace(tree.root / "docker" / NEW / "compose.yaml", capitals(NEW), capitals(OLD))
    done = tree.contract("-k", NEW)
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert f"{capitals(OLD)}_VLLM_REQUIREMENT" in done.stdout


def spaced(done: subprocess.CompletedProcess[str]) -> str:
    """What pytest printed, runs of blanks as it indents an assertion made one length."""
    return re.sub(r"^E +", "E   ", done.stdout, flags=re.MULTILINE)
