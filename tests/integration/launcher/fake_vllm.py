"""A tiny stand-in for vLLM: prints its start-up lines, answers /health, and fails as its options say.

Called as the launcher calls vLLM: `fake_vllm.py [options] SNAPSHOT --config FILE --host H --port N --middleware M
[words]`.
GET /crash ends it with exit code 1; GET /orphan makes an orphan end; GET /processes lists pid, parent, state.
With `--engine` a second process, in a session of its own, is the engine: /metrics tells its tokens and GET /run lets
it have a request, of which it makes tokens until GET /finish; POST asks for one token. GET /looks says how often
/metrics was asked, GET /asked how often for a token.
With `--flood` it prints as fast as it can, and GET /printed says how many bytes that were. With `--drip-health` its
/health never comes to an end, with `--huge-metrics` its /metrics are 16 MB. GET /chats says what was asked of
/v1/chat/completions, and how many at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

from launcher.engine import admission

_HEAD = "(EngineCore pid=7) INFO 11-20 20:00:00 "
_START_UP = (
    "[cpu_model_runner.py:68] Starting to load model {snapshot}...",
    "[cpu_model_runner.py:87] Warming up model for the compilation...",
    "[core.py:402] init engine (profile, create kv cache, warmup model) took 0.01 s",
)
_VALIDATION = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, max_model_len (99999999) is too large [type=value_error, input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev/v/value_error"""
_BEATS = "import sys, time\nwhile True: sys.stdout.write('.'), sys.stdout.flush(), time.sleep(0.005)"
_METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="fake"} %(running)s
vllm:num_requests_waiting{engine="0",model_name="fake"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="fake"} %(running)s
vllm:prompt_tokens_total{engine="0",model_name="fake"} 3.0
vllm:generation_tokens_total{engine="0",model_name="fake"} %(tokens)s
vllm:request_success_total{engine="0",finished_reason="stop",model_name="fake"} %(finished)s
"""
_ORPHAN = "import os; child = os.fork(); child and (print(child), os._exit(0)); os.read(0, 1)"


class Engine:
    """What /metrics tells: at most one request at a time, and a token for each beat of the engine's process."""

    def __init__(self) -> None:
        """An engine without a process, and without a request."""
        self.running, self.tokens, self.finished = 0, 0, 0
        self.beats, self.looks, self.asked = 0, 0, 0

    def start(self) -> None:
        """Start the process; its number goes to standard error."""
        process = subprocess.Popen(
            [sys.executable, "-c", _BEATS], stdout=subprocess.PIPE, start_new_session=True
        )
        threading.Thread(target=self._listen, args=(process.stdout,), daemon=True).start()
        print("engine:", process.pid, file=sys.stderr, flush=True)

    def run(self) -> None:
        """A request comes."""
        self.running = 1

    def finish(self) -> None:
        """It ends."""
        self.running, self.finished = 0, self.finished + 1

    def one_token(self) -> None:
        """The engine reports a request with the end of its step, if that ends."""
        self.asked, before = self.asked + 1, self.beats
        while self.beats == before:
            time.sleep(0.005)
        self.tokens, self.finished = self.tokens + 1, self.finished + 1

    def metrics(self) -> str:
        """As vLLM words it."""
        self.looks += 1
        return _METRICS % vars(self)

    def _listen(self, beats: IO[bytes]) -> None:
        while beats.read(1):
            self.beats += 1
            self.tokens += self.running


_engine = Engine()


class Flood:
    """Prints lines as fast as somebody takes them."""

    printed = 0

    def run(self) -> None:
        """For ever."""
        line = b"x" * 999 + b"\n"
        while True:
            self.printed += os.write(1, line)
            time.sleep(0)


class Chats:
    """What has been asked of /v1/chat/completions, and how many at once."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.asked: list[dict[str, object]] = []
        self.running, self.most = 0, 0
        self.lock = threading.Lock()

    def ask(self, request: dict[str, object]) -> tuple[int, bytes]:
        """Status and body, after a moment in which others may come; or as `--chats` says."""
        with self.lock:
            self.asked.append(request)
            self.running += 1
            self.most = max(self.most, self.running)
        if _options.chats == "die":
            os._exit(1)
        time.sleep(3600 if self._hangs() else 1.5 if _options.chats == "slow" else 0.02)
        with self.lock:
            self.running -= 1
            _engine.finished += 1
        if _options.chats == "refuse":
            return 400, b'{"error": {"message": "This model has no chat template"}}'
        return 200, b"{}"

    def _hangs(self) -> bool:
        if _options.chats == "hang-once" and not _options.marker.exists():
            _options.marker.touch()
            vars(_options)["chats"] = "hang"
        return _options.chats == "hang" or (_options.chats == "hang-second" and len(self.asked) > 1)


_flood, _chats = Flood(), Chats()
_options = argparse.Namespace()


class Handler(BaseHTTPRequestHandler):
    """The routes that the tests use."""

    def do_GET(self) -> None:
        """Answer with JSON, or with metrics."""
        if self.path == "/crash":
            os._exit(1)
        routes = {
            "/health": _nothing,
            "/orphan": _orphan,
            "/processes": _processes,
            "/run": _engine.run,
            "/finish": _engine.finish,
            "/looks": lambda: _engine.looks,
            "/asked": lambda: _engine.asked,
            "/printed": lambda: _flood.printed,
            "/chats": lambda: {"asked": _chats.asked, "most": _chats.most},
        }
        if not self._may_pass():
            return
        if self.path == "/health" and _options.drip_health:
            self._drip()
            return
        text = _metrics() if self.path == "/metrics" else json.dumps(routes[self.path]())
        self._answer(text.encode())

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"y")
                time.sleep(0.05)

    def do_POST(self) -> None:
        """Answer a chat, or any other once the engine has made a token."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._may_pass():
            return
        if self.path == "/v1/chat/completions":
            status, answer = _chats.ask(json.loads(body))
            self._answer(answer, status)
        else:
            _engine.one_token()
            self._answer(b"{}")

    def _may_pass(self) -> bool:
        """As the middleware would say; what the tests alone ask passes."""
        wanted = admission.key_wanted(os.environ["LAUNCHER_STATE_DIR"])
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        if (
            self.path not in ("/health", "/v1/chat/completions")
            or wanted is None
            or admission.has_key(wanted, headers)
        ):
            return True
        self._answer(b"{}", 503)
        return False

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing: the tests read the start-up lines."""


class Server(ThreadingHTTPServer):
    """Keeps quiet about clients that leave."""

    def handle_error(self, request: object, client_address: object) -> None:
        """The tests read what the launcher prints."""


def _metrics() -> str:
    if _options.blind:
        return "python_info 1.0\n"
    return _engine.metrics() + ("} " * 8_000_000 if _options.huge_metrics else "")


def _nothing() -> None:
    return None


def _orphan() -> int:
    """Let a child fork and end, so that its own child is an orphan, and let that one end too; its pid."""
    parent = subprocess.Popen(
        [sys.executable, "-u", "-c", _ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    orphan = int(parent.stdout.readline())
    parent.wait()
    parent.stdin.close()
    return orphan


def _processes() -> list[tuple[int, int, str]]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid, _, rest = stat.read_text().partition(" (")
        state, parent = rest.rpartition(") ")[2].split()[:2]
        found.append((int(pid), int(parent), state))
    return found


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
    parser.add_argument("--fail", choices=("validation", "oom", "once", "abort"), help="how to end")
    parser.add_argument("--marker", type=Path, help="for `once` and `hang-once`: the file that says so")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--rank", action="store_true", help="leave a process in the group")
    parser.add_argument("--engine", action="store_true", help="have a process that makes tokens")
    parser.add_argument("--loads-s", type=float, default=0.0, help="seconds until it says anything")
    parser.add_argument("--flood", action="store_true", help="print without end")
    parser.add_argument("--drip-health", action="store_true", help="answer /health a byte at a time")
    parser.add_argument("--blind", action="store_true", help="say nothing of vLLM's at /metrics")
    parser.add_argument("--huge-metrics", action="store_true", help="say far too much at /metrics")
    parser.add_argument(
        "--chats",
        choices=("refuse", "hang", "hang-once", "hang-second", "slow", "die"),
        help="how to answer chats",
    )
    parser.add_argument("snapshot")
    parser.add_argument("--config")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--middleware")
    return parser.parse_args()


def _fail(how: str, marker: Path | None) -> None:
    if how == "validation":
        sys.exit(_VALIDATION)
    if how == "oom":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        sys.exit("RuntimeError: CUDA error: an illegal memory access was encountered")
    if how == "once" and marker is not None and not marker.exists():
        marker.touch()
        sys.exit(1)


def _end(*_: object) -> None:
    """Say whether requests were refused by then."""
    is_closed = admission.closed_file(Path(os.environ["LAUNCHER_STATE_DIR"])).exists()
    os.write(1, f"closed: {is_closed}\n".encode())
    os._exit(0)


def main() -> None:
    """Start up, serve until told to stop."""
    arguments = _parsed()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, whatever its threads do
    signal.signal(signal.SIGTERM, signal.SIG_IGN if arguments.ignore_sigterm else _end)
    print("words:", *sys.argv[1:], flush=True)
    print("gpus:", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    if arguments.rank:
        rank = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print("rank:", rank.pid, file=sys.stderr, flush=True)
    if arguments.fail:
        _fail(arguments.fail, arguments.marker)
    if arguments.engine:
        _engine.start()
    time.sleep(arguments.loads_s)
    for line in _START_UP:
        print(_HEAD + line.format(snapshot=arguments.snapshot), flush=True)
    vars(_options).update(vars(arguments))
    if arguments.flood:
        threading.Thread(target=_flood.run, daemon=True).start()
    Server((arguments.host, arguments.port), Handler).serve_forever()


main()
