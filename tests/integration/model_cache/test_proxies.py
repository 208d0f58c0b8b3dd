"""The way out through a proxy, and by a CA of one's own: used as the settings say, named where it fails."""

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from urllib.parse import urlsplit

import pytest

from tests.hub.server import Hub

from .conftest import Job, free_port, hashes

PASSWORD = "s3cr3t-of-the-proxy"


class Proxy(ThreadingTCPServer):
    """Passes on to the hub whatever host it is asked for; knows what that was."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, hub_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub_port = hub_port
        self.asked: list[str] = []
        self.status = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.asked.append(f"{url.scheme}://{url.netloc}")
        if self.server.status:
            self.send_error(self.server.status)
            return
        with closing(HTTPConnection("127.0.0.1", self.server.hub_port, timeout=60)) as hub:
            hub.request("GET", f"{url.path}?{url.query}", headers=dict(self.headers.items()))
            answer = hub.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            while block := answer.read1(1 << 20):
                self.wfile.write(block)

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        if self.server.status:
            self.send_error(self.server.status)
            return
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.1", self.server.hub_port)) as hub:
            back = threading.Thread(target=copy, args=(hub, self.connection), daemon=True)
            back.start()
            copy(self.connection, hub)
            back.join(timeout=60)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(hub: Hub) -> Iterator[Proxy]:
    """In front of ``hub``."""
    with Proxy(hub.port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def through(proxy: Proxy | str, **settings: str) -> dict[str, str]:
    address = proxy if isinstance(proxy, str) else proxy.address
    value = f"http://user:{PASSWORD}@{address}"
    return {"HTTP_PROXY": value, "HTTPS_PROXY": value, "http_proxy": value, **settings}


def test_weights_come_through_a_proxy(job: Job, proxy: Proxy, true_hashes: dict[str, str]) -> None:
    """The hub's name is the proxy's to look up."""
    outcome = job.run(**through(proxy, MODEL_CACHE_ENDPOINT="http://hub.invalid"))

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert set(proxy.asked) == {"http://hub.invalid"}


@pytest.mark.parametrize("prefix", ["", "user:pass@"])
def test_a_proxy_without_a_scheme_speaks_http(
    job: Job, proxy: Proxy, true_hashes: dict[str, str], prefix: str
) -> None:
    """As curl has it; the host may be called as it likes."""
    address = f"{prefix}{proxy.address.replace('127.0.0.1', 'localhost')}"
    outcome = job.run(HTTP_PROXY=address, HTTPS_PROXY=address, MODEL_CACHE_ENDPOINT="http://hub.invalid")

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert set(proxy.asked) == {"http://hub.invalid"}


def test_a_proxy_may_stand_in_a_file(
    job: Job, proxy: Proxy, true_hashes: dict[str, str], tmp_path: Path
) -> None:
    """In place of what the environment says, which others can read."""
    path = tmp_path / "proxy"
    path.write_text(f"user:{PASSWORD}@{proxy.address}\n")
    elsewhere = f"http://127.0.0.1:{free_port()}"
    outcome = job.run(
        MODEL_CACHE_PROXY_FILE=str(path), MODEL_CACHE_ENDPOINT="http://hub.invalid", HTTP_PROXY=elsewhere,
        http_proxy=elsewhere,
    )  # fmt: skip

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert set(proxy.asked) == {"http://hub.invalid"}


@pytest.mark.parametrize(
    ("text", "told"), [(None, "cannot read"), ("", "is empty"), ("two words", "is no proxy's")]
)
def test_a_file_without_a_proxy_is_named(job: Job, tmp_path: Path, text: str | None, told: str) -> None:
    """Exit 2, with the setting or the file."""
    path = tmp_path / "proxy"
    if text is not None:
        path.write_text(text)
    outcome = job.run(MODEL_CACHE_PROXY_FILE=str(path), MODEL_CACHE_ENDPOINT="http://hub.invalid")

    assert outcome.code == 2
    assert told in outcome.stderr
    assert str(path) in outcome.stderr


def test_no_proxy_is_heard(job: Job, proxy: Proxy) -> None:
    """A host that it names is asked directly."""
    assert job.run(**through(proxy, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")).code == 0
    assert proxy.asked == []


def test_other_nodes_are_asked_directly(job: Job, hub: Hub, proxy: Proxy) -> None:
    """Their token is for nobody on the way."""
    hub.stop()
    outcome = job.run(**through(proxy, MODEL_CACHE_FALLBACKS=f"node:http://127.0.0.1:{free_port()}"))

    assert outcome.code == 3
    assert set(proxy.asked) == {f"http://127.0.0.1:{hub.port}"}


@pytest.mark.parametrize("endpoint", ["http://hub.invalid", "https://hub.invalid"])
def test_a_proxy_that_is_not_there_is_named(job: Job, endpoint: str) -> None:
    """Exit 3 with its address and the setting, without its password."""
    address = f"127.0.0.1:{free_port()}"
    outcome = job.run(**through(address, MODEL_CACHE_ENDPOINT=endpoint))

    assert outcome.code == 3
    assert f"http://{address}" in outcome.stderr
    assert "HTTPS_PROXY" in outcome.stderr
    assert PASSWORD not in outcome.stderr + json.dumps(outcome.lines)


@pytest.mark.parametrize("endpoint", ["http://hub.invalid", "https://hub.invalid"])
@pytest.mark.parametrize("status", [407, 503])
def test_a_proxy_that_refuses_is_named(job: Job, proxy: Proxy, endpoint: str, status: int) -> None:
    """With what it says."""
    proxy.status = status
    outcome = job.run(**through(proxy, MODEL_CACHE_ENDPOINT=endpoint))

    assert outcome.code == 3
    assert f"http://{proxy.address}" in outcome.stderr
    assert str(status) in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert PASSWORD not in outcome.stderr + json.dumps(outcome.lines)


@pytest.mark.parametrize("value", [f"proxy:{PASSWORD}", f"socks5://u:{PASSWORD}@h:1080"])
def test_what_is_no_proxy_is_named_without_its_value(job: Job, value: str) -> None:
    """Exit 2 where it is needed; that SOCKS is not supported is said as such."""
    outcome = job.run(HTTPS_PROXY=value, MODEL_CACHE_ENDPOINT="https://hub.invalid")

    assert (outcome.code, "HTTPS_PROXY" in outcome.stderr) == (2, True)
    assert ("SOCKS proxies" in outcome.stderr) == ("socks" in value)
    assert outcome.stderr.count("\n") == 1
    assert PASSWORD not in outcome.stderr + json.dumps(outcome.lines)


def test_what_is_no_proxy_is_no_fault_where_it_is_not_used(
    job: Job, hub: Hub, true_hashes: dict[str, str]
) -> None:
    """For another scheme, for a host that goes without, and where the snapshot is complete."""
    value = f"socks5://u:{PASSWORD}@h:1080"
    assert job.run(HTTPS_PROXY=value, HTTP_PROXY=value, NO_PROXY="127.0.0.1").code == 0
    hub.stop()
    assert job.run(HTTPS_PROXY=value, HTTP_PROXY=value, ALL_PROXY=value).code == 0
    assert job.run_text("verify", HTTP_PROXY=value).returncode == 0
    assert hashes(job.link) == true_hashes


@pytest.fixture
def certified(models: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A hub with a certificate of its own, and that."""
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=hub", "-days", "2"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Hub(models)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with server.running():
        yield f"https://127.0.0.1:{server.port}", certificate


def test_a_ca_of_ones_own(
    job: Job, certified: tuple[str, Path], proxy: Proxy, true_hashes: dict[str, str]
) -> None:
    """With it the hub is trusted, directly and through a proxy; without it the error names the setting."""
    endpoint, certificate = certified
    proxy.hub_port = urlsplit(endpoint).port or 0
    stranger = job.run(MODEL_CACHE_ENDPOINT=endpoint)
    settings = {"MODEL_CACHE_ENDPOINT": endpoint, "MODEL_CACHE_CA_FILE": str(certificate)}
    known = job.run(**through(proxy, **settings))

    assert stranger.code == 3
    assert "MODEL_CACHE_CA_FILE" in stranger.stderr
    assert known.code == 0, known.stderr
    assert hashes(job.link) == true_hashes
    assert set(proxy.asked) == {endpoint.removeprefix("https://")}


def test_a_ca_file_that_is_none_is_named(job: Job, tmp_path: Path) -> None:
    """Exit 2."""
    (tmp_path / "ca.pem").write_text("none")
    outcome = job.run(MODEL_CACHE_CA_FILE=str(tmp_path / "ca.pem"))

    assert (outcome.code, "MODEL_CACHE_CA_FILE" in outcome.stderr) == (2, True)
