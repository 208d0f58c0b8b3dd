"""An engine that stands still while vLLM's API server answers as ever: it serves again with no human."""

import json
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, Stack, get, wait_for
from tests.e2e.test_lifecycle import ask
from tests.twins import dialogues

LIMIT_S = 15
# Stops vLLM's engine, as the container's own user.
FREEZE = """
import os, signal
from pathlib import Path
name = b"VLLM::EngineCore"
found = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes().startswith(name)]
for pid in found:
    os.kill(pid, signal.SIGSTOP)
print(*found)
"""
HEALTH = "from urllib.request import urlopen as g; print(g('http://127.0.0.1:8000/health', timeout=5).status)"
ALIVE = """
from pathlib import Path
print(*(path.name for path in Path("/proc").glob("[0-9]*")))
"""


@pytest.fixture
def impatient(stack: Stack) -> Iterator[Stack]:
    """The worker anew, with a short limit; afterwards with its own."""
    up = ("up", "-d", "--wait", "--wait-timeout", "300", SLUG)
    stack.compose(*up, HANG_AFTER_S=str(LIMIT_S))
    stack.wait_ready()
    yield stack
    stack.up()


def events(stack: Stack, event: str) -> list[dict[str, object]]:
    """What the launcher has logged under this name."""
    lines = (line for line in stack.logs(SLUG).splitlines() if '"logger": "launcher"' in line)
    return [logged for line in lines if (logged := json.loads(line))["event"] == event]


def test_frozen_engine_is_killed_and_serves_again(impatient: Stack, client: OpenAI) -> None:
    """SIGSTOP to EngineCore in the middle of a stream: /health still answers, the launcher notices, all comes back."""
    stack, container = impatient, impatient.container(SLUG)
    assert ask(client).strip() == dialogues.CHINESE.answer.content  # arms the watch
    more = {"ignore_eos": True}
    stream = client.completions.create(model=MODEL, prompt="1", max_tokens=8000, stream=True, extra_body=more)
    next(stream)
    status, frozen = stack.run_in(SLUG, FREEZE)
    assert (status, len(frozen.split())) == (0, 1), frozen
    assert stack.run_in(SLUG, HEALTH) == (0, "200\n")
    assert get(f"{GATEWAY}/ready")[0] == 200
    with pytest.raises(openai.APIError):
        list(stream)
    [hang] = events(stack, "hang")
    assert hang["hang_after_s"] == LIMIT_S
    assert "have not changed for" in str(hang["problem"])
    assert str(hang["problem"]).endswith("with 1 requests running and 0 waiting")
    crash = wait_for("the back-off", lambda: events(stack, "crash"), 30)[0]
    assert (crash["verdict"], crash["cause"]) == ("hang", hang["problem"])
    assert not set(frozen.split()) & set(stack.run_in(SLUG, ALIVE)[1].split())
    wait_for("the second run", lambda: len(events(stack, "phase")) > 5 or None, 120)
    stack.wait_ready()
    assert ask(client).strip() == dialogues.CHINESE.answer.content
    assert stack.container(SLUG).id == container.id
