"""Other gateways, as `make bench-peers` installs them, at the settings of a production host: no access log, metrics as
they ship, one worker behind them, the cheapest policy that balances (round robin). Each runs on the gateway's core.
"""

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench import answers
from bench.processes import program
from bench.servers import BrokenServer, Kind, Server, free_port, wait_until

FOLDER = Path(__file__).parent.parent / "out" / "peers"
START_S = 90  # LiteLLM imports for a while on one core

Write = Callable[[Path, int, int], list[str]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to compare with. `words`: its arguments, by a folder of its own, its port and the worker's.

    `rounds`: how many it takes part in at most, so that a slow one does not take the whole run's time.
    """

    key: str
    kind: Kind
    program: str
    words: Write
    env: tuple[tuple[str, str], ...] = ()
    rounds: int | None = None

    @property
    def path(self) -> Path:
        return FOLDER / self.key / self.program

    @property
    def is_installed(self) -> bool:
        return self.path.is_file()

    @property
    def name(self) -> str:
        """With its version, once it is installed."""
        version = FOLDER / self.key / "VERSION"
        return f"{self.key} {version.read_text().strip()}" if version.is_file() else self.key


def router_words(*first: str, level: str) -> Write:
    """Of vllm-router and of both generations of smg, which are one family."""

    def words(folder: Path, port: int, worker: int) -> list[str]:
        options = {
            "host": "127.0.0.1",
            "port": port,
            "worker-urls": f"http://127.0.0.1:{worker}",
            "policy": "round_robin",
            "log-level": level,
            "prometheus-host": "127.0.0.1",
            "prometheus-port": free_port(),
            "worker-startup-check-interval": 1,
        }
        return [*first, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]

    return words


def nginx_words(folder: Path, port: int, worker: int) -> list[str]:
    """One worker process, nothing buffered, worker connections kept."""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; client_max_body_size 64m;
  {temporary}
  upstream worker {{ server 127.0.0.1:{worker}; keepalive 2048; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header connection "";
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
""")
    return ["-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def litellm_words(folder: Path, port: int, worker: int) -> list[str]:
    """One process, no database, no keys."""
    upstream = {
        "model": f"openai/{answers.MODEL}",
        "api_base": f"http://127.0.0.1:{worker}/v1",
        "api_key": "none",
    }
    route = {"model_name": answers.MODEL, "litellm_params": upstream}
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump({"model_list": [route]}))
    options = f"--config {config} --host 127.0.0.1 --port {port} --num_workers 1 --telemetry False"
    return options.split()


LITELLM_ENV = (
    ("LITELLM_LOG", "ERROR"),
    ("LITELLM_MODE", "PRODUCTION"),
    ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
)
PEERS = (
    Peer("vllm-router", Kind.RUST, "bin/vllm-router", router_words(level="warning")),
    Peer("sglang-router", Kind.RUST, "bin/smg", router_words("launch", level="warn")),
    Peer("smg", Kind.RUST, "bin/smg", router_words("launch", level="warn")),
    Peer("nginx", Kind.NGINX, "usr/sbin/nginx", nginx_words),
    Peer("litellm", Kind.PYTHON, "bin/litellm", litellm_words, LITELLM_ENV, 3),
)


@contextmanager
def peer_started(peer: Peer, folder: Path, core: int, worker_port: int) -> Iterator[Server]:
    """The peer, answering. Raises BrokenServer."""
    place, port = folder / f"peer-{peer.key}", free_port()
    place.mkdir()
    words = [str(peer.path), *peer.words(place, port, worker_port)]
    log = place / "log"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with program(words, {core}, log, env | dict(peer.env)) as process:
        wait_until(lambda: answers_chat(port) or process.poll() is not None, START_S)
        if not answers_chat(port):
            raise BrokenServer(f"{peer.name} does not answer: {log.read_text(errors='replace')[-500:]}")
        yield Server(peer.key, peer.name, peer.kind, process.pid, port, rounds=peer.rounds)


def answers_chat(port: int) -> bool:
    """Whether a chat request gets the mock worker's text."""
    body = answers.chat_request(answers.MODEL)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return answers.text_of(response.read()) == answers.ANSWER
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
