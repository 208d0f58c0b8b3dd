"""One chat, streamed: whether the model answers, how soon, and how fast the rest comes."""

import base64
import json
import struct
import time
import urllib.request
import zlib
from dataclasses import dataclass

QUESTION = "Which of the two is larger, 9.11 or 9.9?"
SIDE = 728  # pixels


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens as the worker counted them; first_s: until the first chunk with text; tokens_per_s: after it."""

    prompt_tokens: int
    tokens: int
    chunks: int
    first_s: float
    tokens_per_s: float
    text: str


def ask(base: str, model: str, tokens: int, content: object = QUESTION) -> Answer:
    """Asks for exactly `tokens` tokens. Raises URLError where nobody answers, ValueError where no text comes."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0.6,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(body).encode(), headers)
    start = time.monotonic()
    with urllib.request.urlopen(request, timeout=300) as answer:
        stamped = [(time.monotonic() - start, line) for line in answer]
    return summed_up([(at, json.loads(line[6:])) for at, line in stamped if line.startswith(b"data: {")])


def summed_up(events: list[tuple[float, dict[str, object]]]) -> Answer:
    """Of the stream's events, each with the second at which it came."""
    said = [(at, text) for at, event in events if (text := text_of(event))]
    if not said:
        raise ValueError(f"a stream without text: {events[-1:]}")
    usage = next(found for _, event in reversed(events) if isinstance(found := event.get("usage"), dict))
    tokens = int(usage["completion_tokens"])
    first, last = said[0][0], said[-1][0]
    speed = (tokens - 1) / (last - first) if last > first else 0.0
    text = "".join(text for _, text in said)[:200]
    return Answer(int(usage["prompt_tokens"]), tokens, len(said), round(first, 3), round(speed, 2), text)


def text_of(event: dict[str, object]) -> str:
    """What a chunk says, in whichever field."""
    choices = event.get("choices")
    delta = choices[0]["delta"] if isinstance(choices, list) and choices else {}
    return str(delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content") or "")


def about(image: bytes) -> list[dict[str, object]]:
    """The question, asked of an image inside the request."""
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    return [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}]


def png(colour: tuple[int, int, int]) -> bytes:
    """A square of one colour."""
    rows = (b"\0" + bytes(colour) * SIDE) * SIDE
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
