"""The hub's HTTP side.

GET /api/v1/models/<owner>/<name>/repo/files?Revision=&Recursive=[&Root=]   the listing
GET /api/v1/models/<owner>/<name>/repo?Revision=&FilePath=                  a file, whole or by range
GET /<owner>/<name>/resolve/main/<path>                                     a file, as a Hugging Face hub has it
GET /health                                                                 200 while it serves
GET /_requests                                                              what was asked so far, as JSON
PUT /_faults                                                                a JSON list of faults.Fault
"""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from .faults import LISTING, Fault, Faults
from .models import Models

_ROUTE = re.compile(r"/api/v1/models/(?P<repo>[^/]+/[^/]+)/repo(?P<files>/files)?")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/main/(?P<path>.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_BLOCK_BYTES = 1 << 20
_CREDENTIALS = ("Authorization", "Cookie")
REVISIONS = ("master", "main")


class Hub(ThreadingTCPServer):
    """A hub over *root*. *rate* is bytes a second per connection, 0 for no limit; *token*, if set, is due."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, root: Path, host: str = "127.0.0.1", port: int = 0, rate: int = 0, token: str = ""
    ) -> None:
        super().__init__((host, port), _Handler)
        self.models = Models(root)
        self.faults = Faults()
        self.rate = rate
        self.token = token
        self.requests: list[str] = []
        self.times: list[float] = []
        self.credentials: list[str] = []
        self.stopping = threading.Event()

    @property
    def endpoint(self) -> str:
        """The address to give to a client on this machine."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @contextmanager
    def running(self) -> Iterator["Hub"]:
        """Serve in a thread until the block ends."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Stop listening and break off what is being sent."""
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that hang up: being killed is what they are here for."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/health":
            self._json(200, {"status": "ok"})
        elif url.path == "/_requests":
            self._json(200, self.server.requests)
        elif match := _ROUTE.fullmatch(url.path):
            self._model(match["repo"], query, listing=bool(match["files"]))
        elif match := _RESOLVE.fullmatch(url.path):
            self._log(self.headers.get("Range", ""))
            if not self._fails(unquote(match["path"])):
                self._send(match["repo"], unquote(match["path"]))
        else:
            self._log("")
            self._error(404, "no such route")

    def do_PUT(self) -> None:
        faults = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.faults.set(*(Fault(**fault) for fault in faults))
        self._json(200, {})

    def _model(self, repo: str, query: dict[str, str], *, listing: bool) -> None:
        path = LISTING if listing else query.get("FilePath", "")
        self._log(self.headers.get("Range", ""))
        if self._fails(path):
            return
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._error(401, "user not logged in")
        elif query.get("Revision") not in REVISIONS or not self.server.models.find(repo):
            self._error(404, "model or revision does not exist")
        elif listing:
            self._list(repo, query)
        else:
            self._send(repo, path)

    def _fails(self, path: str) -> bool:
        """Whether it was told to, and has."""
        fault = self.server.faults.take("status", path)
        if fault:
            extra = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            self._error(fault.value, "told to fail", extra)
        return fault is not None

    def _list(self, repo: str, query: dict[str, str]) -> None:
        recursive = query.get("Recursive", "").lower() == "true"
        files = self.server.models.listing(repo, query.get("Root", ""), recursive=recursive)
        for entry in files:
            if self.server.faults.take("no-sha256", entry["Path"]):
                del entry["Sha256"]
            if fault := self.server.faults.take("size", entry["Path"]):
                entry["Size"] = fault.value
        files += self.server.faults.entries()
        if fault := self.server.faults.take("drip", LISTING):
            self._drip(fault.value)
        elif self.server.faults.take("endless", LISTING):
            self._send_for_ever()
        else:
            self._json_files(files)

    def _drip(self, rate: int) -> None:
        self._head(200, "application/json", 1 << 20, {})
        while not self.server.stopping.wait(1 / rate):
            self.wfile.write(b" ")

    def _send_for_ever(self) -> None:
        self._head(200, "application/json", 1 << 50, {})
        while not self.server.stopping.is_set():
            self.wfile.write(b" " * _BLOCK_BYTES)

    def _json_files(self, files: list[dict[str, Any]]) -> None:
        self._json(200, {"Code": 200, "Success": True, "Message": "success", "Data": {"Files": files}})

    def _send(self, repo: str, path: str) -> None:
        found = self.server.models.find(repo, path)
        if fault := self.server.faults.take("redirect", path):
            self._head(302, "text/plain", 0, {"Location": f"http://localhost:{fault.value}{self.path}"})
            return
        if fault := self.server.faults.take("drip", path):
            self._drip(fault.value)
            return
        if self.server.faults.take("empty", path):
            self._head(200, "application/octet-stream", 0, {})
            return
        if not found or not found.is_file():
            self._error(404, "file does not exist")
            return
        size = found.stat().st_size
        begin, end, partial = self._range(size)
        if begin >= end and partial:
            self._head(416, "text/plain", 0, {"Content-Range": f"bytes */{size}"})
            return
        extra = {"Content-Range": f"bytes {begin}-{end - 1}/{size}"} if partial else {}
        if self.server.faults.take("linked", path):
            extra["X-Linked-ETag"] = f'"{self.server.models.sha256(found)}"'
        self._head(206 if partial else 200, "application/octet-stream", end - begin, extra)
        with found.open("rb") as file:
            self._body(file, path, begin, end)

    def _range(self, size: int) -> tuple[int, int, bool]:
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not match:
            return 0, size, False
        return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size, True

    def _body(self, file: BinaryIO, path: str, begin: int, end: int) -> None:
        """Send the bytes [begin, end) at the hub's rate, with the faults that *path* has."""
        cut = self.server.faults.take("cut", path) or self.server.faults.take("stall", path)
        corrupt = self.server.faults.take("corrupt", path)
        stop = min(end, begin + cut.value) if cut else end
        block_bytes = min(_BLOCK_BYTES, max(1, self.server.rate // 20)) if self.server.rate else _BLOCK_BYTES
        for at in range(begin, stop, block_bytes):
            count = min(block_bytes, stop - at)
            if corrupt and at <= corrupt.value < at + count:
                self.wfile.write(_flipped(file, at, count, corrupt.value))
            else:  # by the kernel: a client that shares the cores gets what a copy would take
                self.connection.sendfile(file, at, count)
            pause = count / self.server.rate if self.server.rate else 0
            if self.server.stopping.wait(pause):
                break
        if cut and cut.kind == "stall":
            self.server.stopping.wait()
        if cut or self.server.stopping.is_set():
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, status: int, document: Any, extra: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self._head(status, "application/json", len(body), extra or {})
        self.wfile.write(body)

    def _error(self, status: int, message: str, extra: dict[str, str] | None = None) -> None:
        self._json(status, {"Code": status, "Success": False, "Message": message, "Data": None}, extra)

    def _head(self, status: int, kind: str, length: int, extra: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **extra}.items():
            self.send_header(name, value)
        self.end_headers()

    def _log(self, ranged: str) -> None:
        self.server.requests.append(f"{self.path} {ranged}".strip())
        self.server.times.append(time.monotonic())
        self.server.credentials += [self.headers[name] for name in _CREDENTIALS if self.headers[name]]

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: /_requests tells what was asked."""


def _flipped(file: BinaryIO, at: int, count: int, wrong: int) -> bytes:
    """*count* bytes of *file* from *at* on, one bit of the byte at *wrong* turned."""
    file.seek(at)
    block = bytearray(file.read(count))
    block[wrong - at] ^= 1
    return bytes(block)
