"""`cards host` as a process, before an nvidia-smi that says what real ones say, and a weights volume on disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cards import volume
from tests.unit.cards.cards_on_disk import CARD, FOR_HOPPER, SLUG, write
from tests.wrong_files import PLANTED, wrong_records

RECORDS = dict(wrong_records())
ROOT = Path(__file__).resolve().parents[3]
FITS = f"this host can run {SLUG}: GPUs, driver, memory and disk are as its card asks\n"


class Node:
    """A host with eight H200, as its container sees it; tests change what they are about."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.weights, self.slots = directory / "weights", directory / "gpu-slots"
        self.gpus: list[dict[str, Any]] = [self._gpu(index) for index in range(8)]
        self.unknown: list[str] = []
        self.says: dict[str, Any] = {}
        for path in (self.weights, self.slots, directory / "bin"):
            path.mkdir()
        shutil.copy(Path(__file__).with_name("fake_nvidia_smi.py"), self.program)
        self.program.chmod(0o755)
        write(directory)

    @property
    def program(self) -> Path:
        return self.directory / "bin" / "nvidia-smi"

    @staticmethod
    def _gpu(index: int) -> dict[str, Any]:
        memory = {"memory.total": 143771, "memory.free": 143156, "compute_cap": "9.0"}
        fabric = {"fabric.state": "Completed", "fabric.status": "Success"}
        return {"index": index, "uuid": f"GPU-{index}", "driver_version": "580.159.04"} | memory | fabric

    def set(self, field: str, value: object, *indexes: int) -> None:
        """Changes a field of these GPUs, of all if none is named."""
        for index in indexes or range(len(self.gpus)):
            self.gpus[index][field] = value

    def publish(self, repo: str = "owner/name", data: bytes = b"weights") -> Path:
        """A snapshot as the weights job leaves it; returns its only file."""
        snapshot = self.weights / "models" / repo / "0123456789abcdef"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").write_bytes(data)
        entry = {"path": "model.safetensors", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (snapshot / "READY.json").write_text(json.dumps({"schema": 1, "repo": repo, "files": [entry]}))
        (self.weights / "slugs").mkdir()
        (self.weights / "slugs" / SLUG).symlink_to(snapshot)
        return snapshot / "model.safetensors"

    def need_more_than_there_is(self) -> None:
        """Makes the card's weights larger than any disk."""
        write(self.directory, CARD.replace("bytes: 1000000,", f"bytes: {10**18},"))

    def memory(self, total_gib: int, free_gib: int) -> None:
        """Sets what the host's /proc/meminfo says."""
        kib = 1 << 20
        lines = f"MemTotal:  {total_gib * kib} kB\nMemFree:  7 kB\nMemAvailable: {free_gib * kib} kB\n"
        (self.directory / "meminfo").write_text(lines)

    def check(self, *more: str) -> subprocess.CompletedProcess[str]:
        host = self.directory / "host.json"
        host.write_text(json.dumps(self.says or {"gpus": self.gpus, "unknown": self.unknown}))
        paths = f"{self.directory / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
        env = os.environ | {"PATH": paths, "FAKE_NVIDIA_SMI": str(host), "PYTHONPATH": str(ROOT / "docker")}
        where = ["--cards", self.directory, "--weights", self.weights, "--slots", self.slots]
        where += ["--meminfo", self.directory / "meminfo"]
        words = [sys.executable, "-m", "cards", *where, "host", SLUG, *more]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=30)

    def problems(self, count: int) -> str:
        """What a check says that finds `count` problems, a line each, and ends with 3."""
        done = self.check()
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", count), done.stderr
        return done.stderr


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def assert_fits(node: Node) -> None:
    done = node.check()
    assert (done.returncode, done.stdout, done.stderr) == (0, FITS, "")


def test_a_host_that_fits_gets_one_line(node: Node) -> None:
    """Eight free H200, fabric completed, room on disk."""
    assert_fits(node)


@pytest.mark.parametrize(
    "script",
    [
        r"printf '\377\n'",
        "printf '%05000d, GPU-0, 580, 1, 1\n' 7",
        "printf '0, GPU-0, 580, %05000d, 1\n' 7",
        "echo '0, ../../etc/passwd, 580, 1, 1'",
        "echo '\u00b2, GPU-0, 580, 1, 1'",
        r"printf '0, GPU-\000, 580, 1, 1\n'",
        "head -c 200000 /dev/zero | tr '\\0' x",
    ],
)
def test_a_strange_nvidia_smi_is_one_sentence(node: Node, script: str) -> None:
    """Bytes that are no text, numbers without end, a path for a name."""
    node.program.write_text(f"#!/bin/sh\n{script}\n")
    said = node.problems(1)
    assert said.startswith("nvidia-smi said ")
    assert len(said) < 600


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("file", ["turn.lock", "GPU-3"])
def test_what_lies_among_the_slots_is_not_followed(node: Node, file: str, name: str) -> None:
    """It is named, or a lock like any other; nothing waits for it."""
    PLANTED[name](node.slots / file)
    for other in {"turn.lock", *(f"GPU-{index}" for index in range(8))} - {file}:
        (node.slots / other).touch()
    done = node.check()
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (0, FITS) or str(node.slots / file) in done.stderr


def test_a_turn_that_never_ends_is_named(node: Node) -> None:
    with (node.slots / "turn.lock").open("w") as turn:
        (node.slots / "GPU-0").touch()
        fcntl.flock(turn, fcntl.LOCK_EX)
        assert "turn.lock has been locked for 5 s" in node.problems(1)


@pytest.mark.parametrize("name", RECORDS)
def test_a_wrong_ready_file_is_no_snapshot(node: Node, name: str) -> None:
    """The weights are asked for again: the weights job says what is wrong."""
    snapshot = node.publish().parent
    (snapshot / "READY.json").write_bytes(RECORDS[name])
    assert not volume.measure(node.weights, SLUG, "owner/name").complete


@pytest.mark.parametrize("name", PLANTED)
def test_what_lies_where_the_ready_file_should_is_no_snapshot(node: Node, name: str) -> None:
    ready = node.publish().parent / "READY.json"
    ready.unlink()
    PLANTED[name](ready)
    assert not volume.measure(node.weights, SLUG, "owner/name").complete


@pytest.mark.parametrize("nothing", ["N/A", "[N/A]", "[Not Supported]"])
def test_a_host_without_nvswitch_has_no_fabric_to_wait_for(node: Node, nothing: str) -> None:
    """All spellings of nvidia-smi for what is not there."""
    node.set("fabric.state", nothing)
    node.set("fabric.status", nothing)
    assert_fits(node)


@pytest.mark.parametrize(
    ("state", "status"),
    [("In Progress", "N/A"), ("Not Started", "N/A"), ("Completed", "Insufficient Resources")],
)
def test_a_fabric_that_is_not_up_is_named(node: Node, state: str, status: str) -> None:
    """CUDA would fail with error 802 after hours of download: state, GPUs and the service to look at are said now."""
    node.set("fabric.state", state, 2, 3)
    node.set("fabric.status", status, 2, 3)
    said = node.problems(1)
    assert all(words in said for words in (state, "GPU 2, 3", "802", "nvidia-fabricmanager"))


def test_an_old_driver_is_named_with_the_one_it_takes(node: Node) -> None:
    """One sentence, also where that driver's nvidia-smi has never heard of a fabric or a compute capability."""
    node.set("driver_version", "470.256.02")
    node.unknown = ["fabric.state", "fabric.status", "compute_cap"]
    said = node.problems(1)
    assert "470.256.02" in said
    assert "580 or newer" in said


def test_a_missing_gpu_is_counted(node: Node) -> None:
    """Seven of eight."""
    node.gpus.pop()
    said = node.problems(1)
    assert "takes 8 GPUs" in said
    assert "sees 7" in said


def test_a_gpu_in_use_is_named_with_what_is_free(node: Node) -> None:
    """vLLM takes 92 % of each GPU's whole memory and refuses to start with less."""
    node.set("memory.free", 1024, 5)
    said = node.problems(1)
    assert all(words in said for words in ("GPU 5", "1.1 GB", "138.7 GB", "nvidia-smi"))


def test_a_gpu_that_is_too_small_is_named(node: Node) -> None:
    """40 GB where the card asks for 80."""
    node.set("memory.total", 40960)
    node.set("memory.free", 40500)
    said = node.problems(1)
    assert all(words in said for words in ("GPU 0, 1, 2, 3, 4, 5, 6, 7", "43 GB", "80 GB"))


def test_a_gpu_of_80_gb_has_80_gb(node: Node) -> None:
    """What is sold as 80 GB reports 81,559 MiB."""
    node.set("memory.total", 81559)
    node.set("memory.free", 81008)
    assert_fits(node)


def test_gpus_of_another_kind_are_named_with_the_kind_the_recipe_is_for(node: Node) -> None:
    """Eight B200 would fetch hundreds of GB before vLLM ends at a kernel that it has for Hopper alone."""
    write(node.directory, FOR_HOPPER)
    node.set("compute_cap", "10.0")
    assert node.problems(1) == (
        f"GPU 0, 1, 2, 3, 4, 5, 6, 7 has compute capability 10.0 and the recipe of {SLUG} is for 9.0: "
        "take a host with such GPUs\n"
    )


def test_gpus_of_the_kind_the_recipe_is_for_are_accepted(node: Node) -> None:
    """Eight H200."""
    write(node.directory, FOR_HOPPER)
    assert_fits(node)


def test_a_card_without_compute_capabilities_accepts_any(node: Node) -> None:
    """Also one that came after the card was written."""
    node.set("compute_cap", "10.0")
    assert_fits(node)


def test_a_compute_capability_that_is_not_told_is_not_judged(node: Node) -> None:
    """The driver does not know the field, or has no value for it."""
    write(node.directory, FOR_HOPPER)
    node.set("compute_cap", "[N/A]")
    assert_fits(node)
    node.unknown = ["compute_cap"]
    assert_fits(node)


def test_gpus_of_another_kind_do_not_stand_in_for_those_in_use(node: Node) -> None:
    """Nine GPUs, one of another kind and one full, are seven: both are named."""
    write(node.directory, FOR_HOPPER)
    node.gpus.append(node.gpus[0] | {"index": 8, "compute_cap": "10.0"})
    assert_fits(node)
    node.set("memory.free", 1024, 5)
    said = node.problems(2)
    assert "GPU 8 has compute capability 10.0" in said
    assert "GPU 5 has 1.1 GB" in said


def test_more_gpus_than_needed_may_be_in_use(node: Node) -> None:
    """A ninth and tenth GPU, the one small and the other full, are nobody's concern."""
    node.gpus += [
        node.gpus[0] | {"index": 8, "memory.total": 1},
        node.gpus[0] | {"index": 9, "memory.free": 1},
    ]
    assert_fits(node)


@pytest.mark.parametrize(("holder", "fits"), [(SLUG, True), ("kimi-k2p5", False)])
def test_a_worker_that_holds_gpus_is_known_by_its_slots(node: Node, holder: str, fits: bool) -> None:
    """`docker compose up` again, with the slug's own worker on the GPUs, is fine; another slug's worker is named."""
    (node.slots / "turn.lock").touch()
    node.set("memory.free", 9000)
    with ExitStack() as worker:
        for index in range(8):
            slot = worker.enter_context((node.slots / f"GPU-{index}").open("w"))
            slot.write(json.dumps({"slug": holder, "container": "c0ffee", "since": "2026-11-20T00:00:00Z"}))
            slot.flush()
            fcntl.flock(slot, fcntl.LOCK_EX)
        if fits:
            assert_fits(node)
        else:
            assert "held by kimi-k2p5: docker compose stop kimi-k2p5" in node.problems(1)


def test_a_slot_that_nobody_locks_means_nothing(node: Node) -> None:
    """What a dead worker left behind is not a holder."""
    (node.slots / "turn.lock").touch()
    (node.slots / "GPU-0").write_text('{"slug": "kimi-k2p5"}')
    assert_fits(node)


def test_no_nvidia_smi_is_said_with_what_brings_it(node: Node) -> None:
    """Not installed, or not handed into the container."""
    node.program.unlink()
    said = node.problems(1)
    assert "No such file" in said
    assert "container toolkit" in said


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure\nit runs.\n",
            9,
        ),
        ("No devices were found\n", 6),
        ("Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\n", 255),
        ("", 139),
    ],
)
def test_an_nvidia_smi_that_fails_is_quoted(node: Node, text: str, code: int) -> None:
    """Its own words on one line, and its exit code."""
    node.says = {"says": text, "code": code}
    said = node.problems(1)
    assert f"ended with {code}: {' '.join(text.split()) or 'it said nothing'}" in said


@pytest.mark.parametrize("text", ["No devices were found\n", "�\n", "0, a\n", "0, a, b, c, d\n", "x, y, z\n"])
def test_an_nvidia_smi_that_says_something_else_is_quoted(node: Node, text: str) -> None:
    """Exit code 0 and words that tell nothing of a GPU."""
    node.says = {"says": text, "code": 0}
    assert "tells nothing of a GPU" in node.problems(1)


def test_a_lost_gpu_is_quoted(node: Node) -> None:
    """nvidia-smi puts words where numbers were asked for."""
    node.set("memory.free", "[GPU is lost]", 4)
    said = node.problems(1)
    assert "[GPU is lost]" in said
    assert "'4, GPU-4" in said


def test_a_full_volume_is_named_with_the_numbers(node: Node) -> None:
    """The card's size and five per cent against what is free."""
    node.need_more_than_there_is()
    said = node.problems(1)
    assert "owner/name needs about 1.05e+09 GB more" in said
    assert "WEIGHTS_DIR" in said


def test_a_complete_snapshot_needs_no_disk(node: Node) -> None:
    """The weights are there: nothing will be fetched."""
    node.need_more_than_there_is()
    node.publish()
    assert_fits(node)


@pytest.mark.parametrize("damage", ["shorter", "gone", "no record", "strange record", "another repository"])
def test_a_snapshot_that_is_not_whole_needs_disk(node: Node, damage: str) -> None:
    """A file cut short or gone, a record gone or unreadable, a snapshot of another repository."""
    node.need_more_than_there_is()
    file = node.publish("owner/other" if damage == "another repository" else "owner/name")
    if damage == "shorter":
        file.write_bytes(b"we")
    if damage == "gone":
        file.unlink()
    if damage == "no record":
        file.with_name("READY.json").unlink()
    if damage == "strange record":
        file.with_name("READY.json").write_text("[]")
    assert "WEIGHTS_DIR" in node.problems(1)


def test_what_has_been_fetched_already_needs_no_disk_again(node: Node) -> None:
    """An unfinished download goes on where it stopped."""
    staging = node.weights / ".staging" / "owner--name-0123456789abcdef"
    staging.mkdir(parents=True)
    with (staging / "model.safetensors").open("wb") as file:
        file.truncate(10**12)
    write(node.directory, CARD.replace("bytes: 1000000,", f"bytes: {10**12 + 1000},"))
    assert_fits(node)


def test_a_volume_that_is_not_there_is_said(node: Node) -> None:
    """A mistyped WEIGHTS_DIR."""
    node.weights.rmdir()
    said = node.problems(1)
    assert str(node.weights) in said
    assert "WEIGHTS_DIR" in said


def test_every_problem_has_a_sentence_of_its_own(node: Node) -> None:
    """Whoever mends the host sees all of it at once."""
    node.set("driver_version", "550.54.15")
    node.set("fabric.state", "In Progress")
    node.set("memory.free", 10, 0)
    node.gpus.pop()
    node.need_more_than_there_is()
    node.problems(5)


def hold(node: Node, slots: ExitStack, slug: str) -> None:
    """Locks every GPU as a launcher of that slug does."""
    (node.slots / "turn.lock").touch()
    for gpu in node.gpus:
        file = slots.enter_context((node.slots / gpu["uuid"]).open("w"))
        file.write(json.dumps({"slug": slug}))
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)


def test_kv_cache_in_memory_that_the_host_has(node: Node) -> None:
    """400 GiB beside what eight processes need."""
    node.memory(1024, 500)
    assert node.check("--kv-offload-gib=400").returncode == 0
    assert node.check("--kv-offload-gib=").stdout == FITS


@pytest.mark.parametrize(
    ("free", "wanted", "said"),
    [
        (200, "300", "300 GiB of KV cache in the host's memory do not fit: 200 of 1024 GiB are free, and vLLM's "
         "processes need 45 GiB of them; set BIG_MODEL_KV_OFFLOAD_GIB=155, or stop what uses the memory"),
        (40, "0.5", "and vLLM's processes need 45 GiB of them; leave BIG_MODEL_KV_OFFLOAD_GIB empty"),
    ],
)  # fmt: skip
def test_kv_cache_in_memory_that_the_host_has_not(node: Node, free: int, wanted: str, said: str) -> None:
    """The sentence says what is free, and the size that would fit."""
    node.memory(1024, free)
    done = node.check(f"--kv-offload-gib={wanted}")
    assert done.returncode == 3
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serve_yaml_may_ask_for_it_and_the_setting_wins(node: Node) -> None:
    node.memory(1024, 200)
    write(node.directory, serve="kv-offloading-size: 300\n")
    assert "set BIG_MODEL_KV_OFFLOAD_GIB=155" in node.problems(1)
    assert node.check("--kv-offload-gib=100").returncode == 0


def test_a_worker_that_runs_has_its_memory_already(node: Node) -> None:
    """`docker compose up` once more, while the slug serves: only the total is compared."""
    node.memory(1024, 20)
    with ExitStack() as slots:
        hold(node, slots, SLUG)
        assert node.check("--kv-offload-gib=900").returncode == 0
        said = node.check("--kv-offload-gib=1000").stderr
        assert "1024 of 1024 GiB are there" in said
        assert "set BIG_MODEL_KV_OFFLOAD_GIB=979" in said


@pytest.mark.parametrize("wrong", ["0", "-1", "x", "1e3", "nan", "9999999", "\u0663", "1 2"])
def test_a_size_that_is_none_is_refused(node: Node, wrong: str) -> None:
    done = node.check(f"--kv-offload-gib={wrong}")
    assert done.returncode == 2
    assert "must be a number of GiB above 0, or empty for none" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("wrong", ["0", "-1", "true", "x", "'5'", ".inf"])
def test_a_wrong_size_in_serve_yaml_is_named(node: Node, wrong: str) -> None:
    write(node.directory, serve=f"kv-offloading-size: {wrong}\n")
    done = node.check()
    assert done.returncode == 2
    assert "serve.yaml: kv-offloading-size is " in done.stderr


@pytest.mark.parametrize("text", ["", "MemTotal: x kB\n", "MemTotal: 5 kB\n"])
def test_a_strange_meminfo_is_one_sentence(node: Node, text: str) -> None:
    (node.directory / "meminfo").write_text(text)
    done = node.check("--kv-offload-gib=1")
    assert done.returncode == 3
    assert "does not tell the memory" in done.stderr
    (node.directory / "meminfo").unlink()
    assert (
        "cannot be read (No such file or directory), so the memory is unknown"
        in node.check("--kv-offload-gib=1").stderr
    )
