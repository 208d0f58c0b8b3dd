"""The shipped containers' health checks: they ask their own container, whatever proxy its environment names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.certificates import Authority
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import Gateway

SERVICES = yaml.safe_load((Path(__file__).resolve().parents[4] / "compose.yaml").read_text())["services"]
PORTS = {"gateway": "8000", "serve-weights": "8004"}


class Proxy(BaseHTTPRequestHandler):
    """Answers whatever it is asked with 200, as a proxy's own page may."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def proxy() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def check(service: str, port: int, proxy: ThreadingHTTPServer, **settings: str) -> int:
    """The exit code of a service's health check, at another port, with a proxy in its environment."""
    kind, *words = SERVICES[service]["healthcheck"]["test"]
    assert (kind, words[0]) == ("CMD", "python3")
    assert words[-1].count(PORTS[service]) == 1
    words = [sys.executable, *words[1:-1], words[-1].replace(PORTS[service], str(port))]
    address = f"http://127.0.0.1:{proxy.server_port}"
    environment = os.environ | {"HTTP_PROXY": address, "http_proxy": address, "NO_PROXY": "", "no_proxy": ""}
    environment |= settings
    return subprocess.run(words, env=environment, stderr=subprocess.DEVNULL, timeout=30).returncode


@pytest.mark.parametrize("service", PORTS)
def test_a_health_check_asks_no_proxy(gateway: Gateway, proxy: ThreadingHTTPServer, service: str) -> None:
    """It passes while the service answers 200, fails where nobody listens, and the proxy hears of neither."""
    assert check(service, int(gateway.address.rpartition(":")[2]), proxy) == 0
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert check(service, port, proxy) != 0
    assert proxy.asked == []  # type: ignore[attr-defined]


def test_a_health_check_speaks_tls_where_the_gateway_does(
    start_gateway: StartGateway, proxy: ThreadingHTTPServer, tmp_path: Path
) -> None:
    """Whatever name the certificate is for; a gateway that speaks HTTP where TLS is meant is not healthy."""
    authority, cert, key = Authority(tmp_path), tmp_path / "cert", tmp_path / "key"
    for path, content in zip((cert, key), authority.issue("node.example"), strict=True):
        path.write_bytes(content)
    names = {"GATEWAY_TLS_CERT_FILE": str(cert), "GATEWAY_TLS_KEY_FILE": str(key)}
    secured, plain = start_gateway(ca=authority.file, **names), start_gateway()
    ports = [int(one.address.rpartition(":")[2]) for one in (secured, plain)]
    assert check("gateway", ports[0], proxy, **names) == 0
    assert check("gateway", ports[1], proxy, **names) != 0
    assert check("gateway", ports[0], proxy) != 0
    assert proxy.asked == []  # type: ignore[attr-defined]


def test_a_health_check_fails_for_a_bad_answer(gateway: Gateway, proxy: ThreadingHTTPServer) -> None:
    """404, as of another server at that port, is no health."""
    words = SERVICES["gateway"]["healthcheck"]["test"][-1].replace("/health", "/nowhere")
    words = words.replace("8000", gateway.address.rpartition(":")[2])
    assert subprocess.run([sys.executable, "-c", words], timeout=30).returncode == 1
