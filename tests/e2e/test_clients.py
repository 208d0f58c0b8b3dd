"""Clients that people use, each as its own documentation says, against real vLLM through the gateway."""

import json
import os
import subprocess
from typing import Any

import pytest

from tests.e2e.conftest import MODEL
from tests.e2e.stack import GATEWAY, ROOT, Stack
from tests.twins import dialogues

pytestmark = [pytest.mark.full, pytest.mark.clients]
CLIENTS = {
    "with_anthropic.py": "not_found_error",
    "with_langchain.py": "model_not_found",
    "with_litellm.py": "model_not_found",
    "with_node.mjs": "model_not_found",
}


def told_by(program: str) -> dict[str, Any]:
    """What a program of tests/clients says, in the environment that scripts/clients makes."""
    out, own = ROOT / "out/clients", ROOT / "tests/clients"
    words = (
        [out / "node", out / program]
        if program.endswith(".mjs")
        else [out / "venv/bin/python", own / program]
    )
    env = os.environ | {
        "GATEWAY": GATEWAY,
        "MODEL": MODEL,
        "MESSAGES": json.dumps(dialogues.ENGLISH.messages),
    }
    done = subprocess.run(list(map(str, words)), env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("program", CLIENTS)
def test_a_client(program: str, stack: Stack) -> None:
    """A whole answer and a streamed one are what the twin was taught; an unknown model is that client's own error."""
    told = told_by(program)
    assert told["text"].strip() == "".join(told["pieces"]).strip() == dialogues.ENGLISH.answer.content
    assert len(told["pieces"]) > 5
    assert (told["status"], told["error"]) == (404, CLIENTS[program])
    assert told.get("tokens", 1) > 0
