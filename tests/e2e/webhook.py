"""Whom Alertmanager tells in the end-to-end tests: prints every message that is posted to it, one a line."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(body.decode().strip(), flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """The log is the messages alone."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", 9095), Handler).serve_forever()
