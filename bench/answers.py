"""What the mock worker says and the load generator expects, byte for byte. Pure."""

import base64
import random
from dataclasses import dataclass

import orjson

CREATED = 1763683200  # any fixed second: an answer must not differ between runs
DONE = b"data: [DONE]\n\n"
MODEL, REASONER = "bench-model", "bench-reasoner"  # all answers say MODEL
HEAD = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}
ANSWER = (
    "A gateway stands between those who ask and those who answer. It reads a request once, learns which model is "
    "meant, picks a worker, and hands the bytes on as they come. Whatever breaks, it says what and what to do."
)
QUESTION = "What does a gateway between a client and a model server do, and what should it never do? "
USAGE = {
    "prompt_tokens": 231,
    "total_tokens": 269,
    "completion_tokens": 38,
    "prompt_tokens_details": None,
}


@dataclass(frozen=True, slots=True)
class Stream:
    """How to stream: how many chunks, how far apart, and in which field of `delta` the text stands.

    `first_ms`: how long the first takes to come, as a prompt does to be read.
    `seed`: the value of that field in a request that asks for it; every gateway passes it on.
    """

    seed: int
    chunks: int
    interval_ms: int
    field: str = "content"
    first_ms: int = 0

    @property
    def seconds(self) -> float:
        return (self.first_ms + self.chunks * self.interval_ms) / 1000


FIRST_MS = 17  # the 7B's first token on an idle H200 (docs/proofs.md): no model here is faster
LONG, SHORT, SLOW, THOUGHTS, PROMPTED = (
    Stream(1, 100, 20),
    Stream(2, 25, 20),
    Stream(3, 40, 100),
    Stream(4, 100, 20, "reasoning"),
    Stream(5, 100, 20, first_ms=FIRST_MS),
)
STREAMS = (LONG, SHORT, SLOW, THOUGHTS, PROMPTED)


def chat_request(model: str) -> bytes:
    """The body of a chat request, about 1.3 KB."""
    return _request(model, QUESTION * 11)


def stream_request(model: str, stream: Stream) -> bytes:
    """The body of a request for that stream, as long."""
    return _request(model, QUESTION * 11, stream.seed)


def long_request(model: str, size: int) -> bytes:
    """The body of a chat request of exactly `size` bytes, at least 1,000, most of it text."""
    empty = len(_request(model, ""))
    return _request(model, (QUESTION * (size // len(QUESTION) + 1))[: size - empty])


def image_request(model: str, size: int) -> bytes:
    """The body of a chat request of about `size` bytes that shows an image as a `data:` URI."""
    pixels = base64.b64encode(random.Random(0).randbytes(size * 3 // 4)).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixels}"}}
    return _request(model, [{"type": "text", "text": QUESTION}, image])


def _request(model: str, content: object, seed: int = 0) -> bytes:
    """seed: of the stream that is asked for; 0: none is."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant that answers briefly. " * 4},
        {"role": "user", "content": content},
    ]
    options = {"temperature": 0.7, "max_tokens": 512, "stream": bool(seed), "seed": seed}
    return orjson.dumps({"model": model, "messages": messages} | options)


def completion() -> bytes:
    """A chat completion as vLLM words it, about 560 bytes."""
    message = {"role": "assistant", "content": ANSWER, "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    return orjson.dumps(
        {"id": "chatcmpl-bench", "object": "chat.completion", "created": CREATED, "model": MODEL}
        | {"choices": [choice], "usage": USAGE}
    )


def events(stream: Stream) -> list[bytes]:
    """The server-sent events of a stream, without usage and the closing [DONE]."""
    words = ANSWER.split()
    return [_event({stream.field: words[number % len(words)] + " "}) for number in range(stream.chunks)]


def usage_event() -> bytes:
    """The event before [DONE] that a request with `stream_options.include_usage` gets."""
    return b"data: " + orjson.dumps(HEAD | {"choices": [], "usage": USAGE}) + b"\n\n"


def stream_body(stream: Stream) -> bytes:
    """The whole body of a stream as a client gets it, [DONE] included."""
    return b"".join(events(stream)) + DONE


def with_both_names(body: bytes) -> bytes:
    """`body`, a stream of the reasoner, as Octet's gateway hands it on: each `reasoning` under its former name too."""
    lines = (_doubled(line) for line in body.splitlines(keepends=True))
    return b"".join(lines)


def _doubled(line: bytes) -> bytes:
    before, key, after = line.partition(b'"reasoning":')
    value = after.partition(b"}")[0]  # no word of ANSWER has a brace
    return before + key + value + b',"reasoning_content":' + value + after[len(value) :] if key else line


def text_of(body: bytes) -> str:
    """The text of a completion or of a whole stream, whatever else stands there. Raises ValueError or KeyError."""
    if not body.startswith(b"data: "):
        return str(orjson.loads(body)["choices"][0]["message"]["content"])
    if not body.endswith(DONE):
        raise ValueError("a stream without its end")
    events = (orjson.loads(line[6:]) for line in body.split(b"\n\n") if line and line + b"\n\n" != DONE)
    deltas = (event["choices"][0]["delta"] for event in events if event["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)


def numbered(number: int) -> str:
    """The model that one worker alone serves, where a gateway has many."""
    return f"{MODEL}-{number:02}"


def models(number: int) -> bytes:
    """The answer to GET /v1/models of the worker of that number: those that all serve, and its own."""
    names = [MODEL, REASONER, numbered(number)]
    entries = [{"id": name, "object": "model", "created": CREATED, "owned_by": "bench"} for name in names]
    return orjson.dumps({"object": "list", "data": entries})


def worker_metrics() -> bytes:
    """The answer to GET /metrics: an idle vLLM's load."""
    gauges = {"num_requests_running": 1.0, "num_requests_waiting": 0.0, "kv_cache_usage_perc": 0.01}
    lines = (
        f'# TYPE vllm:{name} gauge\nvllm:{name}{{engine="0",model_name="{MODEL}"}} {value}\n'
        for name, value in gauges.items()
    )
    return "".join(lines).encode()


def _event(delta: dict[str, str]) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return b"data: " + orjson.dumps(HEAD | {"choices": [choice]}) + b"\n\n"
