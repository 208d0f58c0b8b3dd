"""Serves the published weights of this volume to other nodes: read-only, by sha256, to clients with the token.

GET /v1/weights/<owner>/<name>?revision=   READY.json of the newest snapshot of that revision
GET /v1/files/<sha256>                     the file with that content, whole or by range
GET /health                                200, without a token
Exit codes: 0 stopped by a signal · 2 a setting is wrong, or the port in use · 3 no descriptors or threads are left
"""

import asyncio
import hmac
import os
import re
import signal
import sys
from argparse import Namespace
from urllib.parse import parse_qs, urlsplit

from model_cache.commands.published import PublishedWeights
from model_cache.errors import ConfigError, RetryableError
from model_cache.http import listener
from model_cache.http.listener import Answer, Listener, PortError, Request, port_of, problem
from model_cache.http.sender import Piece
from model_cache.settings import ServeSettings, load
from model_cache.telemetry.lines import Lines

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")  # one range, as a download that resumes asks for


class WeightsHandler:
    """The HTTP handler of serve-weights: answers requests for *published* weights that carry the *token*."""

    def __init__(self, published: PublishedWeights, token: str) -> None:
        self._published = published
        self._token = token
        self._one_lookup = asyncio.Lock()  # many clients at once must not all walk the disk, each in a thread

    async def answer(self, request: Request) -> Answer:
        """Answer /health at once; anything else needs the token, and a thread looks it up, for one client at a time."""
        try:
            url = urlsplit(request.target)
        except ValueError:
            return problem(400, "the request target is not a valid URL")
        if url.path == "/health":
            return Answer(200, b'{"status": "ok"}')
        if not self._is_authorized(request):
            return problem(401, "a token is needed: MODEL_CACHE_NODE_TOKEN_FILE")
        async with self._one_lookup:
            return await asyncio.to_thread(self._answer_from_disk, url.path, url.query, request)

    def _is_authorized(self, request: Request) -> bool:
        """Return whether the request has the token, compared in a time that tells nothing about it."""
        given = request.headers.get("authorization", "").encode()
        return hmac.compare_digest(given, f"Bearer {self._token}".encode())

    def _answer_from_disk(self, path: str, query: str, request: Request) -> Answer:
        """Return the answer for one path, whose token was right. Reads the disk, so it runs in a thread."""
        match path.strip("/").split("/"):
            case ["v1", "weights", owner, name]:  # `master` is the default revision of ModelScope
                return self._record(f"{owner}/{name}", parse_qs(query).get("revision", ["master"])[0])
            case ["v1", "files", sha256]:
                return self._file(sha256, request.headers.get("range", ""))
        return problem(404, "no such route")

    def _record(self, repo: str, revision: str) -> Answer:
        """Answer with the READY.json of the newest snapshot of that name, or 404. Reads the disk, in a thread."""
        found = self._published.newest(repo, revision)
        return Answer(200, found.to_json().encode()) if found else problem(404, "no such weights here")

    def _file(self, sha256: str, asked: str) -> Answer:
        """Return the content with that sha256, whole or the one range of it that was *asked* for; else 404."""
        file = self._published.open(sha256)
        if file is None:
            return problem(404, "no such content here")
        size = os.fstat(file.fileno()).st_size
        begin, end = _range(asked, size)
        is_whole = (begin, end) == (0, size)
        partial = {} if is_whole else {"Content-Range": f"bytes {begin}-{end - 1}/{size}"}
        kind = "application/octet-stream"
        return Answer(200 if is_whole else 206, Piece(file, begin, end), kind, partial)


def _range(asked: str, size: int) -> tuple[int, int]:
    """Return the range [begin, end) that was asked for; the whole file for none or an empty one, as HTTP allows."""
    match = _RANGE.fullmatch(asked)
    begin, last = (int(match[1]), match[2]) if match else (0, "")
    end = min(size, int(last) + 1) if last else size
    return (begin, end) if begin < end else (0, size)


async def serve(settings: ServeSettings, lines: Lines) -> None:
    """Listen, and serve until SIGTERM or SIGINT, in the event loop of `run`. Raises ConfigError, and OSError."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    published = PublishedWeights(settings.dir, lambda problem: lines.say(event="not-served", problem=problem))
    weights = WeightsHandler(published, settings.token())
    listening = Listener(weights.answer, lambda *end: _log_request(lines, *end))
    try:
        server = await listening.start(settings.serve_port)
    except PortError as error:
        problem = f"cannot listen on port {settings.serve_port} ({error})"
        raise ConfigError(f"{problem}; set MODEL_CACHE_SERVE_PORT") from error
    lines.say(event="listening", port=port_of(server))
    await stopped.wait()
    await listening.stop(server)


def _log_request(lines: Lines, client: str, asked: str, outcome: str) -> None:
    """Queue one line of JSON about a request that has ended: at most 1,000 characters of its target, no token."""
    lines.say(event="served", client=client, request=asked[:1000], status=outcome)


def run(_: Namespace) -> None:
    """Serve until SIGTERM or SIGINT, as the service `serve-weights`. Raises ConfigError and RetryableError."""
    with Lines(sys.stdout) as lines:
        settings = load(ServeSettings)
        try:
            listener.run(lambda: serve(settings, lines))
        except OSError as error:
            raise RetryableError(
                f"weights cannot be served ({error.strerror or error}); run again"
            ) from error
