"""What happens over time: a worker dies and comes back, a second start downloads nothing, a stopped model says so."""

import json
import os
import re
import signal

import httpx
import openai
import pytest
from openai import OpenAI

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, Stack, asking, get, wait_for
from tests.twins import dialogues

ASKED = asking(8090, "/_requests")


def ask(client: OpenAI) -> str:
    turn = dialogues.CHINESE
    return (
        client.chat.completions.create(model=MODEL, temperature=0, **turn.request())
        .choices[0]
        .message.content
    )


def test_vllm_leaves_the_host_its_turns(stack: Stack) -> None:
    """The image's vLLM waits as `patch.py` has it: otherwise the tests below find a host that stands still."""
    status, words = stack.run_in(SLUG, "from vllm.distributed import utils; print(utils.USE_SCHED_YIELD)")
    assert (status, words.splitlines()[-1]) == (0, "False")


def test_killed_worker_comes_back_by_itself(stack: Stack, client: OpenAI) -> None:
    """SIGKILL to a worker's process 1: clients get an OpenAI error, then the model serves again, with no human."""
    before = stack.container(SLUG)
    os.kill(before.attrs["State"]["Pid"], signal.SIGKILL)
    wait_for("the gateway to notice", lambda: get(f"{GATEWAY}/ready")[0] == 503, 30, every_s=0.1)
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client)
    assert caught.value.code in ("model_loading", "no_worker_available", "model_not_found")
    stack.wait_ready()
    assert ask(client).strip() == dialogues.CHINESE.answer.content
    after = stack.container(SLUG)
    after.reload()
    assert after.id == before.id
    assert after.attrs["RestartCount"] >= 1


def test_killed_engine_is_restarted_inside_the_container(stack: Stack, client: OpenAI) -> None:
    """SIGKILL to vLLM's own processes: the launcher starts vLLM again, and says how far it is; the container stays."""
    container = stack.container(SLUG)
    pids = [int(row[1]) for row in container.top()["Processes"] if "vllm" in row[-1].lower()]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for("the gateway to notice", lambda: get(f"{GATEWAY}/ready")[0] == 503, 60, every_s=0.1)
    body = {"model": MODEL, "max_tokens": 1, **dialogues.CHINESE.request()}
    wait_for("an estimate", lambda: re.search(r"\(\w+.*, about 1 min\)", said(body)), 60, every_s=0.2)
    stack.wait_ready()
    assert ask(client).strip() == dialogues.CHINESE.answer.content
    assert stack.container(SLUG).id == container.id


def said(body: dict[str, object]) -> str:
    """The message of the error that a request gets, if it gets one."""
    answer = httpx.post(f"{GATEWAY}/v1/chat/completions", json=body, timeout=30)
    return "" if answer.status_code == 200 else str(answer.json()["error"]["message"])


def test_a_worker_that_is_told_to_stop_drains(stack: Stack) -> None:
    """A stream goes on to its end; whoever comes meanwhile is refused, and not with an empty answer."""
    turn = dialogues.ENGLISH.request()
    long = {"model": MODEL, "stream": True, "max_tokens": 2500, "ignore_eos": True, **turn}
    container, refusal = stack.container(SLUG), None
    with httpx.stream("POST", f"{GATEWAY}/v1/chat/completions", json=long, timeout=90) as answer:
        lines = answer.iter_lines()
        next(lines)
        container.kill("SIGTERM")
        wait_for(
            "the door to close", lambda: '"event":"stopping"' in stack.logs(SLUG).replace('": ', '":'), 10
        )
        refusal = wait_for("a refusal", lambda: refused({"model": MODEL, "max_tokens": 4, **turn}), 10)
        last = [line for line in lines if line][-1]
    assert last == "data: [DONE]"
    assert refusal["code"] in ("no_worker_available", "model_loading")
    container.wait(timeout=60)
    container.start()
    stack.wait_ready()


def refused(body: dict[str, object]) -> dict[str, object] | None:
    """The error of a request, or None where it is still answered, with words in it."""
    answer = httpx.post(f"{GATEWAY}/v1/chat/completions", json=body, timeout=30)
    if answer.status_code == 200:
        assert answer.json()["choices"][0]["finish_reason"] != "abort"
        return None
    assert answer.status_code == 503
    found: dict[str, object] = answer.json()["error"]
    return found


def test_stopped_and_started_again(stack: Stack, client: OpenAI) -> None:
    """A declared model that is not started is a 404 that names the command; that command downloads nothing anew."""
    stack.compose("stop", SLUG)
    error = wait_for("the 404", not_found, 30)
    assert error["code"] == "model_not_found"
    assert f"docker compose up -d {SLUG}" in error["message"]
    assert json.loads(get(f"{GATEWAY}/v1/models")[1])["data"] == []
    stack.down()
    needs_no_hub(stack)
    stack.up()
    assert ask(client).strip() == dialogues.CHINESE.answer.content
    assert stack.run_in("hub", ASKED) == (0, "[]\n")


def not_found() -> dict[str, str] | None:
    """The error of a request, once it is a 404."""
    answer = httpx.post(f"{GATEWAY}/v1/chat/completions", json={"model": MODEL, "messages": []}, timeout=10)
    return answer.json()["error"] if answer.status_code == 404 else None


def needs_no_hub(stack: Stack) -> None:
    """With the weights on the volume the job is content while the hub stays away."""
    stack.compose("up", "-d", "--no-deps", f"{SLUG}-weights")
    job = stack.container(f"{SLUG}-weights")
    assert job.wait(timeout=60)["StatusCode"] == 0, job.logs().decode()
