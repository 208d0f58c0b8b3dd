"""The ops port: a thread that answers `GET /metrics` and `GET /state` from the state file, whatever the loop is at."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from launcher import page, state

_PATIENCE_S = 5.0  # with a client that says nothing
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


def serve(port: int, state_file: Path, disks: Mapping[str, Path]) -> None:
    """Answer from now on, until the process ends; `disks` are watched for free space. Raises `OSError`."""
    server = _Server(("", port), _handler(state_file, _Disks(disks)))
    threading.Thread(target=server.serve_forever, name="ops", daemon=True).start()


def _handler(state_file: Path, disks: _Disks) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known = state.read(state_file)
            if known is None:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", "no state was written\n")
            elif self.path == "/metrics":
                self._answer(HTTPStatus.OK, _EXPOSITION, page.exposition(known, disks.measured()))
            elif self.path == "/state":
                self._answer(HTTPStatus.OK, "application/json", json.dumps(page.report(known)))
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", "GET /metrics or /state\n")

        def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Machines ask every few seconds."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without the library's question to the name server for this host's own name: here nobody answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left before its answer is nobody's concern."""


class _Disks:
    """Asked by one thread at a time: one that hangs (a server of files that is gone) shall not hold them all."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._asking = threading.Lock()

    def measured(self) -> dict[str, tuple[int, int]]:
        """Free and all bytes of each disk that can be asked; none while another thread waits for an answer."""
        if not self._asking.acquire(blocking=False):
            return {}
        try:
            return {name: space for name, path in self._paths.items() if (space := _space(path))}
        finally:
            self._asking.release()


def _space(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.statvfs(path)
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
