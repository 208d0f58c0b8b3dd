"""`make tune` on a stand-in for Docker: how a trial is started, measured and removed; and the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.tune.compose_engine import ComposeEngine
from bench.tune.engine import EngineError, Load, StartError

ROOT = Path(__file__).resolve().parents[3]
SLUG = "qwen3-0p6b-cpu"
LOAD = Load((4,), rounds=2, prompts=2, input_len=16, output_len=8)
ROUND = {
    "round": 1, "way": "direct", "concurrency": 4, "failed": 0, "output_throughput": 50.0, "median_ttft_ms": 20.0,
    "median_tpot_ms": 5.0,
}  # fmt: skip
DOCKER = """#!/usr/bin/env bash
# stands in for Docker: writes down what it is asked, and answers from files of the test
cd "$FAKE"
echo "$*" >> calls
case " $* " in
  *" compose ps "*) cat running 2>/dev/null || true ;;
  *" run "*) [ ! -e refuses ] || { cat refuses >&2; exit 1; } ;;
  *" cat /run/octet/state.json "*) cat state ;;
  *" /program/serve.py "*) [ ! -e slow ] || sleep 60; cat answer; cat said >&2 2>/dev/null; exit 0 ;;
  *" inspect "*) cat alive 2>/dev/null || echo true ;;
  *" logs "*) echo "its last words" ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the stand-in finds its answers; all is well at first."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    (tmp_path / "state").write_text('{"phase": "ready"}')
    (tmp_path / "answer").write_text(json.dumps({"loads": [ROUND | {"round": 0}, ROUND]}))
    return tmp_path


def engine(within_s: float = 30) -> ComposeEngine:
    return ComposeEngine(ROOT, SLUG, "qwen3-0.6b", within_s, trust_remote_code=True)


def calls(fake: Path) -> list[str]:
    return (fake / "calls").read_text().splitlines()


def test_a_trial_in_the_slugs_own_image(fake: Path) -> None:
    """Its serve.yaml is the trial's, its weights the slug's; nothing of it is left."""
    measured = engine().measure(fake / "trial.yaml", LOAD)
    assert list(measured.loads) == [ROUND]
    said = calls(fake)
    [run] = [call for call in said if " run " in call]
    assert run.startswith(
        f"compose --progress quiet --profile {SLUG} run --detach --no-deps --name octet-tune-{SLUG}"
    )
    assert f"--volume {fake}/trial.yaml:/etc/octet/serve.yaml:ro" in run
    assert run.endswith(f" {SLUG}")
    [load] = [call for call in said if "/program/serve.py" in call.split(" ")]
    assert f"--tokenizer /weights/slugs/{SLUG} --trust-remote-code --way direct=http://127.0.0.1:8000" in load
    assert "--concurrency 4 --rounds 3 --prompts 2 --input-len 16 --output-len 8" in load
    assert said[-1] == f"rm --force --volumes octet-tune-{SLUG}"


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({"state": '{"trouble": "configuration", "problem": "no such option"}'}, StartError, "no such option"),
        ({"state": '{"trouble": "crash", "problem": "out of memory"}'}, StartError, "out of memory"),
        ({"state": '{"trouble": "gpus-busy", "problem": "x holds them"}'}, EngineError, "x holds them"),
        ({"state": '{"trouble": "weights-missing", "problem": "fetch them"}'}, EngineError, "fetch them"),
        ({"state": "no json", "alive": "false"}, StartError, "its container ended: its last words"),
        ({"state": '{"phase": "loading"}'}, StartError, "not ready within 1 s, in phase loading"),
        ({"answer": "", "said": "bench: 500"}, StartError, "it answered no request: bench: 500"),
        ({"answer": "{}"}, StartError, "it answered no request"),
        ({"answer": '{"loads": [{}]}'}, StartError, "it answered no request"),
        ({"refuses": "no such image"}, EngineError, "docker compose failed: no such image"),
    ],
)  # fmt: skip
def test_what_keeps_a_trial_from_an_end(
    fake: Path, files: dict[str, str], error: type[Exception], said: str
) -> None:
    """An option's fault is a result, the host's is not; either way nothing is left running."""
    for name, text in files.items():
        (fake / name).write_text(text)
    with pytest.raises(error) as raised:
        engine(within_s=1).measure(fake / "trial.yaml", LOAD)
    assert said in str(raised.value)
    assert calls(fake)[-1] == f"rm --force --volumes octet-tune-{SLUG}"


def test_a_slug_that_runs_is_in_the_way(fake: Path) -> None:
    (fake / "running").write_text("0123abc\n")
    with pytest.raises(EngineError, match=f"docker compose stop {SLUG}"):
        engine().check()


def test_a_host_without_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="docker cannot be started"):
        engine().check()


def words(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "bench.tune", SLUG, "--folder", str(folder), "--rounds", "2", *more]


def tune(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'docker'}"}
    return subprocess.run(
        words(folder, *more), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )


def test_the_command_from_end_to_end(fake: Path) -> None:
    """All options do the same here, so nothing is written; a second call has nothing left to measure."""
    done = tune(fake / "out", "--ttft-ms", "", "--tpot-ms", "", "--lossy", "", "--runs", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "nothing was written"
    assert "trial 1 of at most 4: serve.yaml as it is" in done.stderr
    before = len(calls(fake))
    assert tune(fake / "out", "--runs", "4").stdout == done.stdout
    assert not [call for call in calls(fake)[before:] if " run " in call]
    other = tune(fake / "out", "--ttft-ms", "100")
    assert other.returncode == 2
    assert "was measured with another goal, load: move it away" in other.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--ttft-ms", "-1"], "argument --ttft-ms"),
        (["--runs", "0"], "argument --runs"),
        (["--runs", "1"], "argument --runs"),
        (["--rounds", "1"], "argument --rounds"),
        (["--concurrency", "1,x"], "argument --concurrency"),
        (["--options", "/nowhere"], "/nowhere cannot be read"),
    ],
)
def test_wrong_words_are_told_in_one_line(fake: Path, more: list[str], said: str) -> None:
    done = tune(fake / "out", *more)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_second_session_is_refused_and_a_stop_leaves_nothing_running(fake: Path) -> None:
    """SIGTERM in the middle of a trial ends its container; the next call measures that trial again."""
    (fake / "slow").touch()
    environment: dict[str, Any] = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'docker'}"}
    first = subprocess.Popen(
        words(fake / "out"), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 40
    while not ((fake / "calls").exists() and "/program/serve.py --model" in (fake / "calls").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = tune(fake / "out")
    assert second.returncode == 3
    assert "another session works in" in second.stderr
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=40)
    assert first.returncode == 143
    assert "the same command goes on" in said
    assert calls(fake)[-1] == f"rm --force --volumes octet-tune-{SLUG}"
    (fake / "slow").unlink()
    assert "trial 1 of" in tune(fake / "out", "--runs", "2").stderr


VLLM = """
# stands in for vLLM: its speed is its max-num-seqs, up to 16
import json, pathlib, sys, urllib.request, yaml
from http.server import BaseHTTPRequestHandler, HTTPServer

given = dict(zip(sys.argv, sys.argv[1:]))
if sys.argv[1] == "serve":
    options = yaml.safe_load(pathlib.Path(given["--config"]).read_text())
    if options.get("kv-cache-dtype"):
        sys.exit("ValueError: no such type: " + options["kv-cache-dtype"])

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(str(min(16, options["max-num-seqs"])).encode())

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

    HTTPServer(("127.0.0.1", int(given["--port"])), Answer).serve_forever()
with urllib.request.urlopen(given["--base-url"] + "/speed") as answer:
    speed = float(answer.read())
figures = {"completed": 1, "failed": 0, "output_throughput": speed, "median_ttft_ms": 1, "median_tpot_ms": 1}
pathlib.Path(given["--result-dir"], given["--result-filename"]).write_text(json.dumps(figures))
"""
TABLE = """
- {option: max-num-seqs, unset: 256, first: up, values: [1, 4, 16, 64]}
- {option: kv-cache-dtype, values: [null, no-such-type]}
"""


def test_without_docker_from_end_to_end(tmp_path: Path) -> None:
    """On this host's own vLLM, for which a module stands in: a value that is too small is found, and written."""
    (tmp_path / "vllm/entrypoints/cli").mkdir(parents=True)
    (tmp_path / "vllm/entrypoints/cli/main.py").write_text(VLLM)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "options.yaml").write_text(TABLE)
    shipped = (
        (ROOT / "docker" / SLUG / "serve.yaml").read_text().replace("max-num-seqs: 16", "max-num-seqs: 1")
    )
    (tmp_path / "shipped.yaml").write_text(shipped)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = [
        "--checkpoint",
        tmp_path,
        "--options",
        tmp_path / "options.yaml",
        "--serve-yaml",
        tmp_path / "shipped.yaml",
    ]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'docker'}:{tmp_path}"}
    command = [*words(tmp_path / "out", *map(str, own)), "--port", str(port), "--within-s", "60"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in (tmp_path / "out/journal.jsonl").read_text().splitlines()[1:]]
    tried = [
        trial["changes"].get("max-num-seqs", 1)
        for trial in trials
        if "kv-cache-dtype" not in trial["changes"]
    ]
    assert tried == [1, 4, 16, 64, 1]
    [failed] = [trial["failure"] for trial in trials if trial["failure"]]
    assert "ValueError: no such type: no-such-type" in failed
    written = yaml.safe_load((tmp_path / "out/serve.yaml").read_text())
    assert written == yaml.safe_load(shipped) | {"max-num-seqs": 16}
    assert "max-num-seqs: 16: score 16.00 (spread 0.00)" in done.stdout


@pytest.mark.parametrize(
    ("file", "said"), [("config.json", "cannot import vllm"), ("other", "has no config.json")]
)
def test_a_host_that_cannot_start_anything(tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / file).write_text("{}")
    done = tune(tmp_path / "out", "--checkpoint", str(tmp_path))
    assert done.returncode == 3
    assert said in done.stderr
