"""An engine that stands still while vLLM's API server answers as ever: it serves again with no human."""

import json
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, Stack, asking, get, wait_for
from tests.e2e.test_lifecycle import ask
from tests.twins import dialogues

pytestmark = pytest.mark.full
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
HEALTH = asking(8000, "/health", shown="status")
ALIVE = """
from pathlib import Path
print(*(path.name for path in Path("/proc").glob("[0-9]*")))
"""


@pytest.fixture(scope="module")
def impatient(stack: Stack) -> Iterator[Stack]:
    """The worker anew, with a short limit; afterwards with its own."""
    stack.compose("up", "-d", "--force-recreate", "--no-deps", "--wait", SLUG, HANG_AFTER_S=str(LIMIT_S))
    stack.wait_ready()
    yield stack
    stack.up()


def events(stack: Stack, since: int, event: str, **fields: object) -> list[dict[str, object]]:
    """What the launcher has logged under this name, with these fields, behind so many characters of the log."""
    lines = (line for line in stack.logs(SLUG)[since:].splitlines() if '"logger": "launcher"' in line)
    logged = map(json.loads, lines)
    return [one for one in logged if one["event"] == event and fields.items() <= one.items()]


def freeze(stack: Stack) -> str:
    """Stop the engine; returns its number. vLLM and the gateway call themselves well."""
    status, frozen = stack.run_in(SLUG, FREEZE)
    assert (status, len(frozen.split())) == (0, 1), frozen
    assert stack.run_in(SLUG, HEALTH) == (0, "200\n")
    assert get(f"{GATEWAY}/ready")[0] == 200
    return frozen.strip()


def serves_again(stack: Stack, client: OpenAI, frozen: str, since: int) -> str:
    """The launcher has ended that engine and started another; returns what it says stood still."""
    [hang] = events(stack, since, "hang")
    assert hang["hang_after_s"] == LIMIT_S
    wait_for(
        "the back-off",
        lambda: events(stack, since, "crash", verdict="hang", cause=hang["problem"]) or None,
        30,
    )
    assert frozen not in stack.run_in(SLUG, ALIVE)[1].split()
    wait_for("the second run", lambda: events(stack, since, "phase", phase="ready") or None, 120)
    stack.wait_ready()
    assert ask(client).strip() == dialogues.CHINESE.answer.content
    return str(hang["problem"])


def test_engine_that_freezes_at_work(impatient: Stack, client: OpenAI) -> None:
    """SIGSTOP in the middle of a stream: /health still answers, the launcher notices, all comes back."""
    container = impatient.container(SLUG)
    assert ask(client).strip() == dialogues.CHINESE.answer.content  # arms the watch
    more = {"ignore_eos": True}
    stream = client.completions.create(model=MODEL, prompt="1", max_tokens=8000, stream=True, extra_body=more)
    next(stream)
    since, frozen = len(impatient.logs(SLUG)), freeze(impatient)
    with pytest.raises(openai.APIError):
        list(stream)
    assert serves_again(impatient, client, frozen, since).endswith("with 1 requests running and 0 waiting")
    assert impatient.container(SLUG).id == container.id


def test_engine_that_freezes_while_idle(impatient: Stack, client: OpenAI) -> None:
    """vLLM's numbers never show the request that comes then; the launcher's own question is not answered either."""
    assert ask(client).strip() == dialogues.CHINESE.answer.content
    before = asked(impatient)
    wait_for("an answer to a question", lambda: asked(impatient) > before + 1 or None, 4 * LIMIT_S)
    since, frozen = len(impatient.logs(SLUG)), freeze(impatient)
    with pytest.raises(openai.APIError):
        ask(client)
    assert serves_again(impatient, client, frozen, since).endswith("but for the launcher's own")


def asked(stack: Stack) -> int:
    """How many completions vLLM has been asked for, by its log: clients here ask for chats."""
    return stack.logs(SLUG).count('"POST /v1/completions HTTP/1.0" 200')
