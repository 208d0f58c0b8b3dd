"""A scriptable fake vLLM on a real loopback socket, in a thread of its own.

A request chooses its answer by a `script` object in its JSON body, the one thing that reaches a worker untouched:
`{"model": "m", "script": {"do": "sse", "chunks": 5, "delay_s": 0.05}}`. `SCRIPTS` lists what can be done; without a
script the answer is vLLM's: a stream if `stream` is true, else JSON. Any script begins `late_s` late.
Every POST is kept as a `Seen`.
"""

from __future__ import annotations

import asyncio
import json
import queue
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

import httptools

WAIT_S = 40.0  # no test waits longer for anything, however slow its host is
IDLE_CLOSE_S = 5.0  # uvicorn's default, and so vLLM's
BACKLOG = 2048  # likewise
STALL_S = 0.3
ENGINE_METRICS = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_use": "vllm:kv_cache_usage_perc",
    "prompt": "vllm:prompt_tokens_total",
    "generated": "vllm:generation_tokens_total",
    "finished": "vllm:request_success_total",
}
DONE = b"data: [DONE]\n\n"
STORED = "/v1/responses/"
USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2}}\n\n'
)
JSON, SSE = "application/json", "text/event-stream; charset=utf-8"
# Spacing, escapes and key order that no serializer would make again: equal bytes are untouched bytes.
COMPLETION = (
    b'{"id": "chatcmpl-1","object":"chat.completion" , "created":1,"model":"m", "choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"\\u4f60\\u597d \xe4\xbd\xa0\xe5\xa5\xbd"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n'
)


@dataclass(eq=False)
class Seen:
    """One request as the worker saw it. `gone` is set when its connection ends before the answer is complete,
    `stalled` when the client's side has taken no byte for STALL_S."""

    method: str
    target: str
    connection: int
    loop: asyncio.AbstractEventLoop
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    gone: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    payload_bytes: int = 0

    @property
    def script(self) -> dict[str, Any]:
        asked = json.loads(self.body) if self.body.startswith(b"{") else {}
        return asked.get("script") or {"do": "sse" if asked.get("stream") else "json"}

    def go_on(self) -> None:
        """Lets a held answer continue."""
        self.loop.call_soon_threadsafe(self.gate.set)


class Reply:
    """The worker's side of one answer."""

    def __init__(self, connection: Connection, seen: Seen) -> None:
        self._connection = connection
        self.seen = seen

    def raw(self, data: bytes) -> None:
        self._connection.transport.write(data)

    def head(self, status: int, content_type: str, *extra: tuple[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {content_type}", "server: uvicorn"]
        lines += [f"{name}: {value}" for name, value in extra]
        self.raw("\r\n".join([*lines, "", ""]).encode())

    def whole(self, status: int, body: bytes, *extra: tuple[str, str]) -> None:
        self.head(status, JSON, ("content-length", str(len(body))), *extra)
        self.raw(body)

    def stream_head(self, *extra: tuple[str, str]) -> None:
        self.head(200, SSE, ("transfer-encoding", "chunked"), *extra)

    def chunk(self, data: bytes) -> None:
        self.seen.payload_bytes += len(data)
        self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.raw(b"0\r\n\r\n")

    def close(self) -> None:
        self._connection.transport.close()

    async def room(self) -> None:
        """Waits until the client's side takes bytes again."""
        await asyncio.sleep(0)  # lets the loop see that the client has gone
        await self._connection.writable.wait()


Script = Callable[[Reply, Mapping[str, Any]], Coroutine[Any, Any, None]]


def event(number: int, text: str = "") -> bytes:
    """One chunk of a stream, in vLLM's shape."""
    delta = {"content": text or f" word{number}"}
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def answer_json(reply: Reply, script: Mapping[str, Any]) -> None:
    """COMPLETION; held before its first byte with `hold`."""
    if script.get("hold"):
        await reply.seen.gate.wait()
    reply.whole(200, COMPLETION)


async def answer_sse(reply: Reply, script: Mapping[str, Any]) -> None:
    """`chunks` events, `delay_s` apart, held before number `hold` (-1: before the head), ended as `end` says."""
    hold = script.get("hold")
    if hold == -1:
        await reply.seen.gate.wait()
    reply.stream_head()
    for number in range(script.get("chunks", 5)):
        if number == hold:
            await reply.seen.gate.wait()
        reply.chunk(event(number))
        await asyncio.sleep(script.get("delay_s", 0))
    await ENDS[script.get("end", "done")](reply)


async def answer_pieces(reply: Reply, script: Mapping[str, Any]) -> None:
    """The texts of `pieces`, a number for so many "x", as a stream or, with `json`, as a body with a length; held
    before number `hold`."""
    pieces = [b"x" * piece if isinstance(piece, int) else piece.encode() for piece in script["pieces"]]
    if script.get("json"):
        reply.head(200, JSON, ("content-length", str(sum(map(len, pieces)))))
    else:
        reply.stream_head()
    for number, piece in enumerate(pieces):
        if number == script.get("hold"):
            await reply.seen.gate.wait()
        (reply.raw if script.get("json") else reply.chunk)(piece)
        await asyncio.sleep(0.01)
    if script.get("hold", -1) >= len(pieces):
        await reply.seen.gate.wait()
    if script.get("drop"):
        reply.close()
    elif not script.get("json"):
        reply.end()


async def answer_cut(reply: Reply, script: Mapping[str, Any]) -> None:
    """`text` of the content type `kind`, framed by `frame` (length, chunks, close). `chunks` and `writes` are the sizes
    in bytes, over and over, of what is one chunk and one write; a stream tells its usage if it is asked to, and ends.
    """
    asked, frame = json.loads(reply.seen.body), script["frame"]
    body = script["text"].encode()
    if asked.get("stream"):
        body += (USAGE if (asked.get("stream_options") or {}).get("include_usage") else b"") + DONE
    if frame == "chunks":
        framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in cut(body, script["chunks"]))
        wire, field = framed + b"0\r\n\r\n", ("transfer-encoding", "chunked")
    else:
        wire, field = (
            body,
            {"length": ("content-length", str(len(body))), "close": ("connection", "close")}[frame],
        )
    reply.head(script.get("status", 200), script["kind"], field)
    for part in cut(wire, script["writes"]):
        reply.raw(part)
        await reply.room()
    if frame == "close":
        reply.close()


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """`data` in pieces of these sizes, over and over."""
    start = 0
    for size in cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


async def end_done(reply: Reply) -> None:
    reply.chunk(DONE)
    reply.end()


async def end_done_held(reply: Reply) -> None:
    """[DONE] at once, the end of the body only after the gate."""
    reply.chunk(DONE)
    await reply.seen.gate.wait()
    reply.end()


async def end_done_drop(reply: Reply) -> None:
    """[DONE], and then the connection is gone without the end of the body."""
    reply.chunk(DONE)
    reply.close()


async def end_clean(reply: Reply) -> None:
    """A complete chunked body without [DONE]."""
    reply.end()


async def end_drop(reply: Reply) -> None:
    reply.close()


async def end_half(reply: Reply) -> None:
    reply.chunk(event(99)[:-20])
    reply.close()


ENDS: Mapping[str, Callable[[Reply], Awaitable[None]]] = {
    "done": end_done,
    "done_held": end_done_held,
    "done_drop": end_done_drop,
    "clean": end_clean,
    "drop": end_drop,
    "half": end_half,
}


async def answer_flood(reply: Reply, script: Mapping[str, Any]) -> None:
    """A stream of `bytes` bytes in events of 16 KiB, as fast as the client takes them; `kind` is its content type."""
    reply.head(200, script.get("kind", SSE), ("transfer-encoding", "chunked"))
    block = event(0, "x" * 16 * 1024)
    for _ in range(script["bytes"] // len(block)):
        await reply.room()
        reply.chunk(block)
    await end_done(reply)


async def answer_error(reply: Reply, script: Mapping[str, Any]) -> None:
    """`status` with vLLM's own error object, or with the text `told`; held with `hold`."""
    status = script["status"]
    if script.get("hold"):
        await reply.seen.gate.wait()
    if "told" in script:
        return reply.whole(status, script["told"].encode())
    error = {"message": "told by the worker", "type": "BadRequestError", "param": None, "code": status}
    reply.whole(status, json.dumps({"error": error}).encode())


async def answer_unauthorized(reply: Reply, script: Mapping[str, Any]) -> None:
    """vLLM's 401, whose error is a string."""
    reply.whole(401, b'{"error":"Unauthorized"}')


async def answer_garbage(reply: Reply, script: Mapping[str, Any]) -> None:
    reply.raw(b"SSH-2.0-OpenSSH_9.2\r\n")


async def answer_short(reply: Reply, script: Mapping[str, Any]) -> None:
    """JSON that ends before its content-length."""
    reply.head(200, JSON, ("content-length", str(len(COMPLETION))))
    reply.raw(COMPLETION[:40])
    reply.close()


async def answer_half_head(reply: Reply, script: Mapping[str, Any]) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\ncontent-ty")
    reply.close()


async def answer_interim(reply: Reply, script: Mapping[str, Any]) -> None:
    """An interim 103 before the answer."""
    reply.raw(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
    reply.whole(200, COMPLETION)


async def answer_twice(reply: Reply, script: Mapping[str, Any]) -> None:
    """An answer that nobody asked for in the wake of the one that was."""
    body = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-second: 1\r\n\r\nevil"
    reply.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}" + body)


async def answer_hop(reply: Reply, script: Mapping[str, Any]) -> None:
    """Hop-by-hop headers, and such as only `connection` makes so, in two fields."""
    named = (
        ("connection", "X-Private"),
        ("connection", "keep-alive, x-too"),
        ("x-private", "1"),
        ("x-too", "1"),
    )
    reply.whole(200, b"{}", *named, ("keep-alive", "timeout=5"), ("x-kept", "1"))


async def answer_close(reply: Reply, script: Mapping[str, Any]) -> None:
    reply.close()


async def answer_hang(reply: Reply, script: Mapping[str, Any]) -> None:
    await asyncio.Event().wait()


SCRIPTS: Mapping[str, Script] = {
    "json": answer_json,
    "sse": answer_sse,
    "flood": answer_flood,
    "pieces": answer_pieces,
    "cut": answer_cut,
    "error": answer_error,
    "unauthorized": answer_unauthorized,
    "garbage": answer_garbage,
    "short": answer_short,
    "half_head": answer_half_head,
    "interim": answer_interim,
    "twice": answer_twice,
    "hop": answer_hop,
    "close": answer_close,
    "hang": answer_hang,
}


class Connection(asyncio.Protocol):
    """One TCP connection to the fake worker; `number` counts them from 0."""

    transport: asyncio.Transport

    def __init__(self, worker: FakeWorker, number: int) -> None:
        self.worker = worker
        self.number = number
        self.answered = 0
        self.seen: Seen | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = asyncio.Event()
        self._parser = httptools.HttpRequestParser(self)
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.worker.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self.answered and self.worker.close_on_reuse and not data.startswith(b"GET "):  # probes may ask on
            self.transport.close()  # uvicorn's timer fired just before these bytes came
            return
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        if self.seen is not None and not self.seen.done.is_set():
            self.seen.gone.set()
        if self._task is not None:
            self._task.cancel()
        self.lost.set()

    def pause_writing(self) -> None:
        self.writable.clear()
        self._stall = self.worker.loop.call_later(STALL_S, self._stalled)

    def resume_writing(self) -> None:
        self.writable.set()
        self._stall.cancel()

    def _stalled(self) -> None:
        if self.seen is not None:
            self.seen.stalled.set()

    # the parser's callbacks

    def on_message_begin(self) -> None:
        self.seen = Seen("", "", self.number, self.worker.loop)
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        assert self.seen is not None
        self.seen.target += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self.seen is not None
        self.seen.headers.append((name.decode(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self.seen is not None
        self.seen.method = self._parser.get_method().decode()
        self.seen.body = bytes(self._body)
        self._task = self.worker.loop.create_task(self._answer(self.seen))

    async def _answer(self, seen: Seen) -> None:
        self.worker.running += 1
        try:
            await self._answered(seen)
        finally:
            self.worker.running -= 1

    async def _answered(self, seen: Seen) -> None:
        if seen.method == "GET" and not seen.target.startswith(STORED):
            self.worker.answer_get(Reply(self, seen))
        else:
            self.worker.seen.put(seen)
            if self.worker.refuses:
                return Reply(self, seen).whole(self.worker.refuses, b"{}")
            if (missing := self.worker.missing(seen)) is not None:
                return Reply(self, seen).whole(404, missing)
            await asyncio.sleep(seen.script.get("late_s", 0))
            await SCRIPTS[seen.script["do"]](Reply(self, seen), seen.script)
        if not self.transport.is_closing():
            seen.done.set()
        self.answered += 1
        self._idle = self.worker.loop.call_later(self.worker.idle_close_s, self.transport.close)


def vitals_page(values: Mapping[str, float]) -> bytes:
    """vLLM's /metrics with these of ENGINE_METRICS; the others are 0."""
    samples = (f'{name}{{engine="0"}} {values.get(word, 0)}\n' for word, name in ENGINE_METRICS.items())
    return "".join(samples).encode()


MAX_MODEL_LEN = 4096


class FakeWorker:
    """A fake vLLM that serves `models`. `health` is the status of its probes, none at all if negative;
    `pages` are answers to GET by target, in place of its own; `asked` counts the GETs by target. A GET of a stored
    response is answered and kept like a POST."""

    def __init__(
        self, models: Sequence[str], *, health: int = 200, idle_close_s: float = IDLE_CLOSE_S
    ) -> None:
        self.models = list(models)
        self.health = health
        self.idle_close_s = idle_close_s
        self.close_on_reuse = False
        self.keeps = True  # responses, as with VLLM_ENABLE_RESPONSES_API_STORE=1
        self.responses: set[str] = set()  # which it has
        self.refuses = 0  # the status of every answer to a POST, if not 0
        self.pages: dict[str, bytes | Callable[[], bytes]] = {}
        self.asked: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.running = 0  # answers that are being made
        self.seen: queue.Queue[Seen] = queue.Queue()
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self._accepted = 0
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> FakeWorker:
        self._thread.start()
        self.revive()
        return self

    def stop(self) -> None:
        self.kill()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()

    def revive(self) -> None:
        """Listens, on the same port as before if it has listened before."""
        self._run(self._listen())

    def kill(self) -> None:
        """Resets every connection and listens no more."""
        self._run(self._die())

    def next(self) -> Seen:
        """The oldest POST not yet asked for; waits for one."""
        return self.seen.get(timeout=WAIT_S)

    def says(self, **values: float) -> None:
        """Makes /metrics vLLM's, with these of ENGINE_METRICS; the others are 0."""
        self.pages["/metrics"] = vitals_page(values)

    def generates(self) -> None:
        """Makes /metrics that of an engine at work: each look finds a token more."""
        tokens = count(1)
        self.pages["/metrics"] = lambda: vitals_page({"running": 1, "finished": 1, "generated": next(tokens)})

    def missing(self, seen: Seen) -> bytes | None:
        """vLLM's words for a response that it does not keep, where one is asked for; keeps the one that is made."""
        if seen.target.startswith(STORED):
            asked = seen.target.removeprefix(STORED).partition("?")[0].removesuffix("/cancel")
        elif seen.target == STORED.rstrip("/"):
            asked = json.loads(seen.body).get("previous_response_id")
        else:
            return None
        if asked is not None and asked not in self.responses:
            error = {"message": f"Response with id '{asked}' not found.", "type": "invalid_request_error"}
            return json.dumps({"error": error | {"param": "response_id", "code": 404}}).encode()
        if self.keeps:
            self.responses |= set(re.findall(r"resp_\w+", json.dumps(seen.script)))
        return None

    def forget(self) -> None:
        """Drops the POSTs that nobody asked for."""
        while not self.seen.empty():
            self.seen.get_nowait()

    def answer_get(self, reply: Reply) -> None:
        self.asked[reply.seen.target] += 1
        if self.health < 0:
            return
        if reply.seen.target == "/health":
            reply.whole(self.health, b"")
        elif reply.seen.target in self.pages:
            page = self.pages[reply.seen.target]
            reply.whole(200, page() if callable(page) else page)
        else:
            facts = {"object": "model", "owned_by": "vllm", "root": "/weights/any", "parent": None}
            entries = [{"id": name, "max_model_len": MAX_MODEL_LEN, **facts} for name in self.models]
            reply.whole(200, json.dumps({"object": "list", "data": entries}).encode())

    def _accept(self) -> Connection:
        self._accepted += 1
        return Connection(self, self._accepted - 1)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)

    async def _listen(self) -> None:
        self._server = await self.loop.create_server(self._accept, "127.0.0.1", self.port, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self, server: asyncio.Server) -> None:
        """asyncio forgets a connection that it has accepted but not set up yet when its server closes."""
        for listening in server.sockets:
            self.loop.remove_reader(listening.fileno())
        for _ in range(3):
            await asyncio.sleep(0)

    async def _die(self) -> None:
        if self._server is not None:
            await self._stop_listening(self._server)
            self._server.close()
            self._server = None
        connections = list(self.connections)
        for connection in connections:
            connection.transport.abort()
        await asyncio.gather(*(connection.lost.wait() for connection in connections))
