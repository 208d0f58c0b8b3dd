"""Corrections of a pinned vLLM take exactly the file they were written for, and say so otherwise."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def patch(site: Path, slug: str = "step3p5-bf16-mtp") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, ROOT / "docker" / slug / "patch.py", site]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """One line names the file and both hashes, so that a build with another vLLM stops there."""
    path = tmp_path / "vllm/transformers_utils/configs/step3p5.py"
    path.parent.mkdir(parents=True)
    path.write_text("changed\n")
    done = patch(tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert str(path) in done.stderr
    assert path.read_text() == "changed\n"


def test_no_vllm_is_refused(tmp_path: Path) -> None:
    """A build that forgot vLLM ends with the same code."""
    done = patch(tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "no file" in done.stderr


def test_another_vllm_on_the_cpu_is_left_alone(tmp_path: Path) -> None:
    """It serves without that correction: a build with one's own wheel goes on, and is told."""
    path = tmp_path / "vllm/distributed/utils.py"
    path.parent.mkdir(parents=True)
    path.write_text("changed\n")
    done = patch(tmp_path, "qwen3-0p6b-cpu")
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    assert "left as it is" in done.stderr
    assert path.read_text() == "changed\n"
