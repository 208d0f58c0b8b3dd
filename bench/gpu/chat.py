"""One chat, streamed: whether the model answers, how soon, and how fast the rest comes."""

import json
import time
import urllib.request
from dataclasses import dataclass

QUESTION = "Which of the two is larger, 9.11 or 9.9?"


@dataclass(frozen=True, slots=True)
class Answer:
    """`tokens` as the worker counted them; first_s: until the first chunk with text; tokens_per_s: after it."""

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
    tokens: int = next(int(usage["completion_tokens"]) for _, event in reversed(events)
                  if isinstance(usage := event.get("usage"), dict))  # fmt: skip
    first, last = said[0][0], said[-1][0]
    speed = (tokens - 1) / (last - first) if last > first else 0.0
    return Answer(
        tokens, len(said), round(first, 3), round(speed, 2), "".join(text for _, text in said)[:200]
    )


def text_of(event: dict[str, object]) -> str:
    """What a chunk says, in whichever field."""
    choices = event.get("choices")
    delta = choices[0]["delta"] if isinstance(choices, list) and choices else {}
    return str(delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content") or "")
