"""GPUs are what `nvidia-smi` lists; anything else it says is a configuration error of one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.resources import gpus
from launcher.resources.gpus import GPU, GpusError

DOCKER = Path(__file__).resolve().parents[4] / "docker"
ASK = """
from launcher.resources import gpus
from launcher.process.init import Init
with Init() as init:
    try:
        gpus.visible(init)
    except gpus.GpusError as error:
        print(error)
"""  # in a process of its own: an `Init` reaps every child
BESIDE = """
import os, subprocess
from launcher.process import process_tree
from launcher.process.init import Init
from launcher.resources import gpus
beside = subprocess.Popen(["sleep", "600"])
with Init() as init:
    gpus.visible(init)
    while len(left := process_tree.descendants(os.getpid())) > 1:
        init.wait(10)
    print([one.pid for one in left] == [beside.pid])
    beside.kill()
"""
SHORT = """
import os, resource
from launcher.process import process
from launcher.process.init import Init
from launcher.resources import gpus
with Init() as init:
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, highest + 2))
    try:
        gpus.visible(init)
    except process.StartError as error:
        print(error)
"""
A, B = GPU(0, "GPU-a1b2"), GPU(1, "GPU-c3d4")


def test_a_line_is_a_gpu_and_the_lowest_index_comes_first() -> None:
    """Ten is after two, and an empty list is no error."""
    assert gpus.parse("10, GPU-z\n2, GPU-y\n") == (GPU(2, "GPU-y"), GPU(10, "GPU-z"))
    assert gpus.parse("\n") == ()


@pytest.mark.parametrize("line", ["No devices were found", "0, ../../etc", "GPU-a1b2", "0, GPU-a, 80 GB"])
def test_any_other_line_is_quoted(line: str) -> None:
    """A UUID becomes a file's name, so nothing else may pass for one."""
    with pytest.raises(GpusError, match="where an index and a UUID were expected") as caught:
        gpus.parse(f"0, GPU-a1b2\n{line}\n")
    assert repr(line) in str(caught.value)


def test_vllm_is_told_by_uuid_and_only_if_gpus_are_claimed() -> None:
    """A worker on the CPU gets its environment unchanged."""
    assert gpus.environ((A, B)) == {"CUDA_VISIBLE_DEVICES": "GPU-a1b2,GPU-c3d4"}
    assert gpus.environ(()) == {}


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (None, "nvidia-smi cannot be started (No such file or directory)"),
        ("echo No devices were found; exit 6", "nvidia-smi ends with 6: No devices were found"),
        ("echo Failed to initialize NVML >&2; exit 18", "nvidia-smi ends with 18: Failed to initialize NVML"),
    ],
    ids=["not there", "no device", "driver"],
)
def test_a_container_without_gpus_is_told_in_nvidia_smis_own_words(
    tmp_path: Path, program: str | None, words: str
) -> None:
    """Its exit code and both its outputs end up in the one line."""
    if program:
        _nvidia_smi(tmp_path, program)
    path = f"{tmp_path}:/usr/bin:/bin" if program else str(tmp_path)
    assert words in _said(ASK, path)


def test_nvidia_smis_end_ends_what_it_has_left_behind_and_nothing_else(tmp_path: Path) -> None:
    """A process that it leaves in a session of its own goes; one that was there before stays."""
    _nvidia_smi(tmp_path, "setsid sleep 600 &")
    assert _said(BESIDE, f"{tmp_path}:/usr/bin:/bin") == "True\n"


def test_a_start_that_may_go_well_later_is_no_lack_of_gpus(tmp_path: Path) -> None:
    """Too many open files are over some time; whoever asks tries again."""
    _nvidia_smi(tmp_path, "echo 0, GPU-a1b2")
    assert _said(SHORT, str(tmp_path)) == "nvidia-smi cannot be started: Too many open files\n"


def _nvidia_smi(folder: Path, script: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)


def _said(program: str, path: str) -> str:
    """What a Python program prints that asks for GPUs."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": path, "PYTHONPATH": str(DOCKER)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
