"""Corrections of a pinned vLLM take exactly the file they were written for, and say so otherwise."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCH = ROOT / "docker/step3p5-bf16-mtp/patch.py"


def patch(site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PATCH, site], capture_output=True, text=True, check=False)


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
