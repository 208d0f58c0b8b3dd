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
- {option: max-num-seqs, unset: 256, first: up, values: [1, 16]}
- {option: kv-cache-dtype, values: [null, no-such-type]}
"""
SLOW = 1  # requests at a time, where eight are open: the value that is to be found wrong


@pytest.mark.full
@pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON names no Python with vLLM")
@pytest.mark.timeout(3000)
def test_a_session_on_a_real_vllm(tmp_path: Path) -> None:
    """A value that is too small is found, a type that vLLM does not know is a result, and the file has its evidence."""
    shipped = (
        (ROOT / "docker/qwen3-0p6b-cpu/serve.yaml")
        .read_text()
        .replace("max-num-seqs: 16", f"max-num-seqs: {SLOW}")
    )
    (tmp_path / "shipped.yaml").write_text(shipped)
    (tmp_path / "options.yaml").write_text(TABLE)
    words = [
        "--checkpoint",
        ROOT / "tests/twins/qwen3",
        "--options",
        tmp_path / "options.yaml",
        "--folder",
        tmp_path,
    ]
    words += ["--serve-yaml", tmp_path / "shipped.yaml", "--port", "18321"]
    sizes = [
        "--concurrency",
        "8",
        "--rounds",
        "2",
        "--prompts",
        "3",
        "--input-len",
        "32",
        "--output-len",
        "32",
    ]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'docker'}:{ROOT}", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [PYTHON, "-m", "bench.tune", "qwen3-0p6b-cpu", *words, *sizes]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout)  # with -s: the figures, for whoever runs it by hand
    assert done.returncode == 0
    first, *trials = map(json.loads, (tmp_path / "journal.jsonl").read_text().splitlines())
    assert first["slug"] == "qwen3-0p6b-cpu"
    more = {"max-num-seqs": 16}
    assert [trial["changes"] for trial in trials] == [{}, more, more | {"kv-cache-dtype": "no-such-type"}, {}]
    assert "no-such-type" in trials[2]["failure"]
    assert yaml.safe_load((tmp_path / "serve.yaml").read_text()) == yaml.safe_load(shipped) | more
    assert "Written by `make tune`" in (tmp_path / "serve.yaml").read_text()
