"""What the mock worker says and the load generator expects, byte for byte. Pure."""

import orjson

CREATED = 1763683200  # any fixed second: an answer must not differ between runs
DONE = b"data: [DONE]\n\n"
ANSWER = (
    "A gateway stands between those who ask and those who answer. It reads a request once, learns which model is "
    "meant, picks a worker, and hands the bytes on as they come. Whatever breaks, it says what and what to do."
)
QUESTION = "What does a gateway between a client and a model server do, and what should it never do? "


def chat_request(model: str, *, stream: bool) -> bytes:
    """The body of a chat request, about 1.3 KB."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant that answers briefly. " * 4},
        {"role": "user", "content": QUESTION * 11},
    ]
    return orjson.dumps(
        {"model": model, "messages": messages, "temperature": 0.7, "max_tokens": 512, "stream": stream}
    )


def completion(model: str) -> bytes:
    """A chat completion as vLLM words it, about 560 bytes."""
    message = {"role": "assistant", "content": ANSWER, "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    usage = {
        "prompt_tokens": 231,
        "total_tokens": 269,
        "completion_tokens": 38,
        "prompt_tokens_details": None,
    }
    return orjson.dumps(
        {"id": "chatcmpl-bench", "object": "chat.completion", "created": CREATED, "model": model}
        | {"choices": [choice], "usage": usage}
    )


def events(model: str, chunks: int) -> list[bytes]:
    """The server-sent events of a streamed completion: `chunks` of them, without the closing [DONE]."""
    words = ANSWER.split()
    return [_event(model, words[number % len(words)] + " ") for number in range(chunks)]


def stream_body(model: str, chunks: int) -> bytes:
    """The whole body of that stream, [DONE] included."""
    return b"".join(events(model, chunks)) + DONE


def models(names: list[str]) -> bytes:
    """The answer to GET /v1/models."""
    entries = [{"id": name, "object": "model", "created": CREATED, "owned_by": "bench"} for name in names]
    return orjson.dumps({"object": "list", "data": entries})


def _event(model: str, text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": CREATED, "model": model}
    return b"data: " + orjson.dumps(head | {"choices": [choice]}) + b"\n\n"
