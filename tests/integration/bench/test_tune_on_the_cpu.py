"""`make tune` end to end: a real vLLM on the CPU with the twin of Qwen3, started anew for each trial.

VLLM_PYTHON names a Python that has the CPU's vLLM (docker/locks/vllm-0.32.0-cpu.lock and the wheels of the card)."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PYTHON = os.environ.get("VLLM_PYTHON", "")
TABLE = """
- {option: max-num-seqs, unset: 256, first: down, values: [1, 16]}
- {option: kv-cache-dtype, values: [null, no-such-type]}
"""


@pytest.mark.full
@pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON names no Python with vLLM")
@pytest.mark.timeout(1800)
def test_a_session_on_a_real_vllm(tmp_path: Path) -> None:
    """From sixteen requests at once, one at once is no gain, and a type that vLLM does not know is a result."""
    (tmp_path / "options.yaml").write_text(TABLE)
    words = [
        "--checkpoint",
        ROOT / "tests/twins/qwen3",
        "--options",
        tmp_path / "options.yaml",
        "--folder",
        tmp_path,
    ]
    sizes = [
        "--concurrency",
        "8",
        "--rounds",
        "2",
        "--input-len",
        "32",
        "--output-len",
        "16",
        "--port",
        "18321",
    ]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'docker'}:{ROOT}", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [PYTHON, "-m", "bench.tune", "qwen3-0p6b-cpu", *words, *sizes]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *trials = map(json.loads, (tmp_path / "journal.jsonl").read_text().splitlines())
    assert first["slug"] == "qwen3-0p6b-cpu"
    assert [trial["changes"] for trial in trials] == [
        {},
        {"max-num-seqs": 1},
        {"kv-cache-dtype": "no-such-type"},
    ]
    assert all(load["output_throughput"] > 0 for trial in trials[:2] for load in trial["loads"])
    assert "no-such-type" in trials[2]["failure"]
    assert yaml.safe_load((tmp_path / "trial.yaml").read_text())["kv-cache-dtype"] == "no-such-type"
    assert done.stdout.splitlines()[-1] == "nothing was written"
