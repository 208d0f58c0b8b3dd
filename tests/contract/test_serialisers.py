"""What the gateway reads in answers it reads whoever has written them.

vLLM cannot be imported here, so these are not its own classes: they are models with the names that vLLM 0.32 gives to
the fields of its answers, written by what it writes them with: pydantic for a stream's events, Starlette's JSONResponse
for documents. Beside these stand other spacings, that of Python's json among them. The tests with a real worker
(`make test-e2e`) see the same in its own bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import orjson
import pytest
from pydantic import BaseModel
from starlette.responses import JSONResponse

from gateway.proxy.response_filter import (
    DocumentFilter,
    Edits,
    ReasoningNames,
    ResponseFilter,
    StreamFilter,
)

END = b"data: [DONE]\n\n"


class Usage(BaseModel):
    prompt_tokens: int = 0
    total_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: dict[str, int] | None = None


class Message(BaseModel):
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, object]] = []


class Choice(BaseModel):
    index: int = 0
    delta: Message | None = None
    message: Message | None = None
    finish_reason: str | None = None


class Answer(BaseModel):
    id: str = "chatcmpl-1"
    object: str = "chat.completion"
    created: int = 1
    model: str = "m"
    choices: list[Choice] = []
    usage: Usage | None = None


def spaced(answer: Answer) -> bytes:
    """With white space wherever JSON allows it, but for the ends of lines, which end an event."""
    text = json.dumps(answer.model_dump(exclude_unset=True), separators=(" , ", "\t : "))
    return text.replace('{"', '{ "').replace("[", "[ ").replace("]", " ]").encode()


WRITERS: dict[str, Callable[[Answer], bytes]] = {
    "pydantic": lambda answer: answer.model_dump_json(exclude_unset=True).encode(),
    "pydantic with nulls": lambda answer: answer.model_dump_json().encode(),
    "JSONResponse": lambda answer: bytes(JSONResponse(answer.model_dump()).body),
    "json": lambda answer: json.dumps(answer.model_dump()).encode(),
    "orjson": lambda answer: orjson.dumps(answer.model_dump()),
    "spaced": spaced,
}
USAGE = Usage(
    prompt_tokens=7, total_tokens=10, completion_tokens=3, prompt_tokens_details={"cached_tokens": 5}
)
TEXT = 'say "usage": {"prompt_tokens": 1} and "reasoning": "x"'
writers = pytest.mark.parametrize("writer", WRITERS)


def through(reading: ResponseFilter, *pieces: bytes) -> bytes:
    return b"".join([*(reading.feed(piece) for piece in pieces), reading.rest()])


@writers
@pytest.mark.parametrize("names", ReasoningNames)
def test_a_document(writer: str, names: ReasoningNames) -> None:
    """Its tokens are told, and its reasoning goes out under the names that are asked for."""
    message = Message(role="assistant", content=TEXT, reasoning="why\n")
    whole = WRITERS[writer](Answer(choices=[Choice(message=message, finish_reason="stop")], usage=USAGE))
    reading = DocumentFilter(Edits(names))
    made = json.loads(through(reading, whole))["choices"][0]["message"]
    assert reading.tokens == (7, 3, 5)
    wanted = {"reasoning", "reasoning_content"} if names is ReasoningNames.BOTH else {names.value} - {"none"}
    assert {name: made[name] for name in made if name.startswith("reasoning")} == dict.fromkeys(
        wanted, "why\n"
    )
    assert made["content"] == TEXT


@writers
def test_a_stream(writer: str) -> None:
    """Likewise, and the event with the usage that only the gateway has asked for is taken out, and no other."""
    parts = [Message(role="assistant"), Message(reasoning="why"), Message(content=TEXT)]
    chunks = [Answer(choices=[Choice(delta=part)]) for part in parts]
    events = [
        b"data: " + WRITERS[writer](one) + b"\n\n" for one in [*chunks, Answer(choices=[], usage=USAGE)]
    ]
    reading = StreamFilter((b"data: [DONE]",), Edits(ReasoningNames.BOTH, hide_usage=True))
    made = through(reading, *events, END).removesuffix(END).split(b"\n\n")[:-1]
    assert reading.tokens == (7, 3, 5)
    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in made]
    assert [delta.get("content") for delta in deltas] == [None, None, TEXT]
    assert deltas[1]["reasoning"] == deltas[1]["reasoning_content"] == "why"


@writers
def test_a_chunk_without_the_words_passes_untouched(writer: str) -> None:
    """Nothing is looked for in it but the words themselves."""
    chunk = b"data: " + WRITERS[writer](Answer(choices=[Choice(delta=Message(content="x"))])) + b"\n\n\r\n"
    if b'"usage"' not in chunk and b'"reasoning"' not in chunk:
        assert StreamFilter((b"data: [DONE]",), Edits(ReasoningNames.BOTH)).pass_on(chunk) == chunk
