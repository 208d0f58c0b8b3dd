"""A tiny stand-in for vLLM: prints its start-up lines, answers /health, and fails as its options say.

Called as the launcher calls vLLM: `fake_vllm.py [options] SNAPSHOT --config FILE --host H --port N [words]`.
GET /crash ends it with exit code 1; GET /orphan makes an orphan end; GET /processes lists pid, parent, state.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

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
_ORPHAN = "import os; child = os.fork(); child and (print(child), os._exit(0)); os.read(0, 1)"


class Handler(BaseHTTPRequestHandler):
    """The routes that the tests use."""

    def do_GET(self) -> None:
        """Answer with JSON."""
        if self.path == "/crash":
            os._exit(1)
        routes = {"/health": _nothing, "/orphan": _orphan, "/processes": _processes}
        body = json.dumps(routes[self.path]()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing: the tests read the start-up lines."""


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
    parser.add_argument("--marker", type=Path, help="for `once`: the file that says it has failed")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--rank", action="store_true", help="leave a process in the group")
    parser.add_argument("snapshot")
    parser.add_argument("--config")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
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


def main() -> None:
    """Start up, serve until told to stop."""
    arguments = _parsed()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if arguments.ignore_sigterm else lambda *_: sys.exit(0))
    print("words:", *sys.argv[1:], flush=True)
    print("gpus:", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    if arguments.rank:
        rank = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print("rank:", rank.pid, file=sys.stderr, flush=True)
    if arguments.fail:
        _fail(arguments.fail, arguments.marker)
    for line in _START_UP:
        print(_HEAD + line.format(snapshot=arguments.snapshot), flush=True)
    HTTPServer((arguments.host, arguments.port), Handler).serve_forever()


main()
