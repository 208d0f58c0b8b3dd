"""What each example says, and its exit code, when the server, the model or the answer is not as hoped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.fake_worker import FakeWorker
from tests.integration.gateway.harness import Gateway, Site
from tests.integration.launcher.harness import free_port

EXAMPLES = Path(__file__).parents[3] / "examples"
PROGRAMS = ["chat_requests.py", "chat.py", "stream.py", "completion.py", "tools.py", "curl.sh"]
UNREACHABLE, NOT_READY, WRONG_ANSWER = 3, 4, 5
JSON, SSE = "application/json", "text/event-stream"

Answer = tuple[int, str, bytes]  # status, content type, body
Serve = Callable[[Answer], str]


def run(program: str, base_url: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs one example as a newcomer would, told by the environment where the server is."""
    own = {"OPENAI_BASE_URL": base_url, "MODEL": "alpha", "NO_PROXY": "127.0.0.1", **env}
    command = [] if program.endswith(".sh") else [sys.executable]
    return subprocess.run(
        [*command, str(EXAMPLES / program), *words],
        env=dict(os.environ) | own,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refusal(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """The exit code and the one line on standard error."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with one answer to everything; returns its base URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, kind, body = answer
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(status)
                self.send_header("content-type", kind)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815  # the name that http.server looks for

            def log_message(self, format: str, *args: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a gateway: `alpha` is ready, `starting` is loading, `absent` is not started."""
    site = Site(tmp_path_factory.mktemp("site"))
    alpha, starting = FakeWorker(["alpha"]).start(), FakeWorker(["starting"], health=503).start()
    for slug in ("alpha", "starting", "absent"):
        site.declare(slug, slug)
    site.attach({"alpha": [alpha], "starting": [starting]})
    running = Gateway(site)
    running.wait_for("alpha", "ready")
    yield f"http://{running.address}/v1"
    running.terminate()
    running.end()
    alpha.stop()
    starting.stop()


def message(**fields: object) -> Answer:
    """A chat completion with one assistant message."""
    choice = {"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    head = {"id": "1", "object": "chat.completion", "created": 1, "model": "alpha"}
    return 200, JSON, json.dumps({**head, "choices": [choice], "usage": usage}).encode()


def event(**delta: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "alpha"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_listens(program: str) -> None:
    """Without a gateway one line names the address that was asked."""
    base_url = f"http://127.0.0.1:{free_port()}/v1"
    code, line = refusal(run(program, base_url))
    assert (code, base_url in line) == (UNREACHABLE, True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_model_not_started(program: str, gateway: str) -> None:
    """A model that is declared and not started: the line carries the gateway's command that starts it."""
    code, line = refusal(run(program, gateway, MODEL="absent"))
    assert code == NOT_READY
    assert "docker compose up -d absent" in line


@pytest.mark.parametrize("program", ["chat.py", "curl.sh"])
def test_model_loading(program: str, gateway: str) -> None:
    """A model that is loading is said so at once, without a retry behind the reader's back."""
    code, line = refusal(run(program, gateway, MODEL="starting"))
    assert code == NOT_READY
    assert "503" in line or "model_loading" in line


@pytest.mark.parametrize("program", PROGRAMS)
def test_error_of_the_server(program: str, serve: Serve) -> None:
    """Any other error of OpenAI's shape ends with its message."""
    error = {"error": {"message": "temperature must be positive", "type": "BadRequestError", "code": 400}}
    code, line = refusal(run(program, serve((400, JSON, json.dumps(error).encode()))))
    assert code == WRONG_ANSWER
    assert "temperature must be positive" in line


@pytest.mark.parametrize("program", ["chat_requests.py", "chat.py", "curl.sh"])
def test_error_that_is_a_string(program: str, serve: Serve) -> None:
    """vLLM's own 401 has a string for an error; it is shown as it is."""
    code, line = refusal(run(program, serve((401, JSON, b'{"error":"Unauthorized"}'))))
    assert (code, "Unauthorized" in line) == (WRONG_ANSWER, True)


@pytest.mark.parametrize("program", ["chat_requests.py", "chat.py"])
def test_page_of_another_server(program: str, serve: Serve) -> None:
    """A page of HTML under that address is not taken for an answer."""
    code, line = refusal(run(program, serve((200, "text/html", b"<h1>It works!</h1>"))))
    assert (code, "It works!" in line) == (WRONG_ANSWER, True)


def test_arguments_win_over_the_environment(gateway: str) -> None:
    """--base-url and --model are taken before OPENAI_BASE_URL and MODEL."""
    words = ("--base-url", gateway, "--model", "alpha", "--api-key", "any", "hello")
    done = run("chat_requests.py", "http://127.0.0.1:9/v1", *words, MODEL="nothing")
    assert (done.returncode, done.stderr) == (0, "")
    assert "你好" in done.stdout


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_under_both_names(field: str, serve: Serve) -> None:
    """What the model thought is found under vLLM's present name and under the former one, streamed or not."""
    assert run("chat.py", serve(message(content="42", **{field: "6 by 7"}))).stdout == (
        "Reasoning: 6 by 7\nAnswer: 42\n"
    )
    finish = event().replace(b"null", b'"stop"')
    pieces = event(role="assistant") + event(**{field: "6 by "}) + event(**{field: "7"}) + event(content="42")
    done = run("stream.py", serve((200, SSE, pieces + finish + b"data: [DONE]\n\n")))
    assert (done.returncode, done.stdout) == (0, "Reasoning: 6 by 7\nAnswer: 42\n")


def test_answer_without_text(serve: Serve) -> None:
    """A model that spent all its tokens on thinking has null for content; that is shown as empty."""
    server = serve(message(content=None, reasoning="hm"))
    assert run("chat_requests.py", server).stdout == "\n(2 tokens)\n"
    assert run("chat.py", server).stdout == "Reasoning: hm\nAnswer: \n"


def test_stream_that_breaks_off(serve: Serve) -> None:
    """A stream with an error in it, and one that ends early, are not taken for finished."""
    error = b'data: {"error": {"message": "worker died", "code": "upstream_disconnected"}}\n\n'
    done = run("stream.py", serve((200, SSE, event(content="half") + error)))
    assert (done.returncode, "worker died" in done.stderr) == (WRONG_ANSWER, True)
    done = run("stream.py", serve((200, SSE, event(content="half"))))
    assert (done.returncode, "ended before" in done.stderr) == (WRONG_ANSWER, True)


def test_model_that_calls_no_tool(serve: Serve) -> None:
    """An answer without a call is said to be one."""
    code, line = refusal(run("tools.py", serve(message(content="I do not know"))))
    assert (code, "I do not know" in line) == (WRONG_ANSWER, True)


CALLS = [
    ("add", {"a": 9.5, "b": 1}, "10.5"),
    ("mul", {"a": 6, "b": 7}, "42"),
    ("compare", {"a": 9.11, "b": 9.9}, "9.9 is greater than 9.11"),
    ("compare", {"a": 2, "b": 2}, "2 is equal to 2"),
    ("count_letter_in_string", {"text": "Strawberry", "letter": "r"}, "'r' occurs 3 times in 'Strawberry'"),
    ("get_weather", {"city": "Shanghai"}, '{"city": "Shanghai", "sky": "cloudy", "temperature_c": 24}'),
    ("get_weather", {"town": "Shanghai"}, "error: TypeError"),
    ("format_disk", {}, "error: KeyError"),
]


def test_tools_compute(serve: Serve) -> None:
    """Each function is called with the model's arguments; a wrong name or argument is told to the model, not run."""
    calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(words)},
        }
        for number, (name, words, _) in enumerate(CALLS)
    ]
    done = run("tools.py", serve(message(content="done", tool_calls=calls)), "--tools", "numbers")
    assert done.returncode == 0, done.stderr
    *called, answer = done.stdout.splitlines()
    for line, (name, _, result) in zip(called, CALLS, strict=True):
        assert line.startswith(f"Call: {name}(")
        assert f"-> {result}" in line
    assert answer == "Answer: done"
