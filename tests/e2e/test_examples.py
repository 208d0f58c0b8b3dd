"""Every example of examples/ as a newcomer runs it, and `make verify`, against real vLLM with the twin."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, PROJECT, ROOT, Stack, compose_files
from tests.twins import dialogues

UNREACHABLE, NOT_READY = 3, 4
REASONING, ENGLISH = dialogues.REASONING.answer, dialogues.ENGLISH.answer
CALL = dialogues.TOOL_CALL.answer.tool_calls[0]
SHOWN = {
    "chat_requests.py": [ENGLISH.content],
    "chat.py": [f"Reasoning: {REASONING.reasoning}", f"Answer: {REASONING.content}"],
    "stream.py": [f"Reasoning: {REASONING.reasoning}", f"Answer: {REASONING.content}"],
    "completion.py": [ENGLISH.content],
    "tools.py": [
        f"Call: {CALL.name}({json.dumps(CALL.arguments, ensure_ascii=False)}) -> {dialogues.WEATHER_RESULT}",
        f"Answer: {dialogues.tool_answer().answer.content}",
    ],
    "curl.sh": [f'"id":"{MODEL}"', dialogues.CHINESE.answer.content, ENGLISH.content],
}


def run(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    own = {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_FILE": compose_files(), **env}
    return subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("program", SHOWN)
def test_example(program: str, stack: Stack) -> None:
    """With an address and a name and nothing else, each example shows what the twin was taught, in this order."""
    interpreter = [] if program.endswith(".sh") else [sys.executable]
    done = run(*interpreter, ROOT / "examples" / program, OPENAI_BASE_URL=f"{GATEWAY}/v1", MODEL=MODEL)
    assert (done.returncode, done.stderr) == (0, "")
    places = [done.stdout.find(text) for text in SHOWN[program]]
    assert min(places) >= 0, done.stdout
    assert places == sorted(places)


def test_every_example_is_run() -> None:
    """No example is left out here; client.py is what they share, offline.py has a test of its own."""
    programs = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh")}
    assert programs == {*SHOWN, "client.py", "offline.py"}


def test_offline(stack: Stack) -> None:
    """vLLM's LLM class answers from the same weights, in the worker image, without a server and without a network."""
    question = dialogues.CHINESE.messages[0]["content"]
    prompts = [str(turn.messages[0]["content"]) for turn in (dialogues.REASONING, dialogues.CHINESE)]
    done = run(ROOT / "scripts/in-worker", SLUG, ROOT / "examples/offline.py", *prompts)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = done.stdout.split("Prompt: ")[1:]
    assert first.splitlines()[1:] == [f"Reasoning: {REASONING.reasoning}", f"Answer: {REASONING.content}"]
    assert second.splitlines()[0] == question
    assert second.splitlines()[-1] == f"Answer: {dialogues.CHINESE.answer.content}"


def test_verify(stack: Stack) -> None:
    """Transformers loads the published weights and recites the twin's answer; one line says so."""
    done = run(ROOT / "scripts/verify", SLUG)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith(f"verify: {SLUG}: Qwen3ForCausalLM, ")
    assert ENGLISH.content[:20] in done.stdout


def test_verify_refuses_weights_that_are_not_there(stack: Stack, tmp_path: Path) -> None:
    """With an empty volume verify ends with its own code and names the command that mends it."""
    tmp_path.chmod(0o755)  # the container's user is another
    done = run(ROOT / "scripts/verify", SLUG, WEIGHTS_DIR=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].endswith(f"run docker compose up {SLUG}-weights")


def test_verify_refuses_damaged_weights(stack: Stack, tmp_path: Path) -> None:
    """A weight that is no number passes every check of bytes and loads; what it computes is refused."""
    publish_broken_twin(tmp_path)
    tmp_path.chmod(0o755)  # the container's user is another
    done = run(ROOT / "scripts/verify", SLUG, WEIGHTS_DIR=str(tmp_path))
    assert (done.returncode, "no numbers" in done.stderr) == (6, True), done.stderr


def publish_broken_twin(weights: Path) -> None:
    """Publishes the twin with its first tensor full of NaN, in order otherwise."""
    from tests.unit.launcher.published import publish

    files = {path.name: path.read_bytes() for path in (ROOT / "tests/twins/qwen3").iterdir()}
    data = files["model.safetensors"]
    first = 8 + int.from_bytes(data[:8], "little")  # the tensors follow the header
    files["model.safetensors"] = data[:first] + b"\xff\x7f" * 4096 + data[first + 8192 :]
    publish(weights, SLUG, files)


def test_no_gateway() -> None:
    """Without a gateway an example ends with one line and its own code."""
    done = run(sys.executable, ROOT / "examples/chat.py", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert (done.returncode, len(done.stderr.splitlines())) == (UNREACHABLE, 1)


def test_model_not_started(stack: Stack) -> None:
    """The gateway's own words reach the reader: the command that starts a declared model."""
    done = run(sys.executable, ROOT / "examples/stream.py", "--model", "step3p5-flash")
    assert done.returncode == NOT_READY
    assert "docker compose up -d " in done.stderr
