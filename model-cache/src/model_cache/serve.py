"""Serves the published weights of this volume to other nodes: read-only, by content, to whoever has the token.

usage: python3 -m model_cache.serve
GET /v1/weights/<owner>/<name>?revision=   READY.json of the newest snapshot of that revision
GET /v1/files/<sha256>                     the file with that content, whole or by range
GET /health                                200, without a token
Exit codes: 0 stopped by a signal · 2 a setting is wrong, or the port in use
"""

import hmac
import json
import os
import re
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from urllib.parse import parse_qs, urlsplit

from model_cache.errors import ConfigError
from model_cache.settings import ServeSettings, load_serving
from model_cache.shelf import Shelf

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


class Server(ThreadingTCPServer):
    """Listens on *port* of every address. Raises OSError."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, shelf: Shelf, token: str, port: int) -> None:
        super().__init__(("0.0.0.0", port), _Handler)
        self.shelf = shelf
        self.token = token

    def handle_error(self, request: object, client_address: object) -> None:
        """One line, where a client hung up or a file went: no other is concerned."""
        say({"event": "broken-off", "client": str(client_address), "problem": str(sys.exception())})


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds a silent client may hold its thread

    def do_GET(self) -> None:
        try:
            url = urlsplit(self.path)
        except ValueError:
            self._text(400, '{"error": "no address"}')
            return
        parts = url.path.strip("/").split("/")
        if url.path == "/health":
            self._text(200, '{"status": "ok"}')
        elif not self._may():
            self._text(401, '{"error": "a token is needed: MODEL_CACHE_NODE_TOKEN_FILE"}')
        elif parts[:2] == ["v1", "weights"] and len(parts) == 4:
            self._record("/".join(parts[2:]), parse_qs(url.query).get("revision", ["master"])[0])
        elif parts[:2] == ["v1", "files"] and len(parts) == 3:
            self._file(parts[2])
        else:
            self._text(404, '{"error": "no such route"}')

    def _may(self) -> bool:
        given = self.headers.get("Authorization", "").encode()
        return hmac.compare_digest(given, f"Bearer {self.server.token}".encode())

    def _record(self, repo: str, revision: str) -> None:
        found = self.server.shelf.newest(repo, revision)
        if found is None:
            self._text(404, '{"error": "no such weights here"}')
        else:
            self._text(200, found.to_json())

    def _file(self, sha256: str) -> None:
        found = self.server.shelf.open(sha256)
        if found is None:
            self._text(404, '{"error": "no such content here"}')
            return
        with found as file:
            size = os.fstat(file.fileno()).st_size
            begin, end = self._range(size)
            partial = (
                {"Content-Range": f"bytes {begin}-{end - 1}/{size}"} if (begin, end) != (0, size) else {}
            )
            self._head(206 if partial else 200, "application/octet-stream", end - begin, partial)
            if end > begin:
                self.connection.sendfile(file, begin, end - begin)

    def _range(self, size: int) -> tuple[int, int]:
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        begin, last = (int(match[1]), match[2]) if match else (0, "")
        end = min(size, int(last) + 1) if last else size
        return (begin, end) if begin < end else (0, size)

    def _text(self, status: int, body: str) -> None:
        self._head(status, "application/json", len(body.encode()), {})
        self.wfile.write(body.encode())

    def _head(self, status: int, kind: str, length: int, extra: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """One line of JSON a request; never the token."""
        asked, status = getattr(self, "path", ""), str(args[1]) if len(args) > 1 else "none"
        say({"event": "served", "client": self.client_address[0], "request": asked, "status": status})


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    try:
        server = listen(load_serving())
    except ConfigError as error:
        sys.stderr.write(f"model-cache: {error}\n")
        return error.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    say({"event": "listening", "port": server.server_address[1]})
    server.serve_forever(poll_interval=0.2)
    server.server_close()
    return 0


def listen(settings: ServeSettings) -> Server:
    """Raises ConfigError."""
    try:
        return Server(Shelf(settings.dir, _say_problem), settings.token(), settings.serve_port)
    except OSError as error:
        problem = f"cannot listen on port {settings.serve_port} ({error.strerror})"
        raise ConfigError(f"{problem}; set MODEL_CACHE_SERVE_PORT") from error


def _say_problem(problem: str) -> None:
    say({"event": "not-served", "problem": problem})


def say(line: dict[str, object]) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
