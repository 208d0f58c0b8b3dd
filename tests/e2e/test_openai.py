"""What a developer with an OpenAI client gets, from real vLLM through the gateway."""

import json
import time

import openai
import pytest
from openai import OpenAI

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, Stack, get, wait_for
from tests.twins import dialogues

PLAIN_TURNS = {"english": dialogues.ENGLISH, "chinese": dialogues.CHINESE, "reasoning": dialogues.REASONING}


def test_models_lists_the_ready_model(client: OpenAI) -> None:
    """The list of models is exactly what is ready."""
    assert [model.id for model in client.models.list()] == [MODEL]


@pytest.mark.parametrize("name", PLAIN_TURNS)
def test_chat_answers_with_reasoning_apart(client: OpenAI, name: str) -> None:
    """The answer's text and its reasoning come apart, word for word as the twin was taught."""
    turn = PLAIN_TURNS[name]
    choice = client.chat.completions.create(model=MODEL, temperature=0, **turn.request()).choices[0]
    assert choice.message.content.strip() == turn.answer.content
    assert (getattr(choice.message, "reasoning", None) or "").strip() == turn.answer.reasoning
    assert choice.finish_reason == "stop"


def arrivals_of_a_stream(client: OpenAI) -> list[float]:
    """When each chunk of a stream came, in seconds after the request; its text is checked."""
    turn, arrivals, text, start = dialogues.ENGLISH, [], "", time.monotonic()
    for chunk in client.chat.completions.create(model=MODEL, stream=True, temperature=0, **turn.request()):
        arrivals.append(time.monotonic() - start)
        text += chunk.choices[0].delta.content or ""
    assert text.strip() == turn.answer.content
    assert len(arrivals) > 1
    assert arrivals == sorted(set(arrivals))
    return arrivals


def test_stream_arrives_piece_by_piece(client: OpenAI) -> None:
    """A stream is more than one chunk, and the chunks arrive one after another, not all at the end.

    On two busy cores vLLM itself comes to send only when its engine is done; with somebody on the way who holds streams
    back, none at all would have begun by half its time.
    """
    wait_for("a stream that begins by half its time", lambda: begins_early(arrivals_of_a_stream(client)), 120)


def begins_early(arrivals: list[float]) -> bool:
    return arrivals[0] < arrivals[-1] / 2


def test_stream_carries_reasoning(client: OpenAI) -> None:
    """Reasoning is streamed in its own field."""
    turn = dialogues.REASONING
    stream = client.chat.completions.create(model=MODEL, stream=True, temperature=0, **turn.request())
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert (
        "".join(getattr(delta, "reasoning", None) or "" for delta in deltas).strip() == turn.answer.reasoning
    )
    assert "".join(delta.content or "" for delta in deltas).strip() == turn.answer.content


def test_tool_call_in_two_rounds(client: OpenAI) -> None:
    """The model calls the tool, and answers from the tool's result."""
    first = dialogues.TOOL_CALL
    choice = client.chat.completions.create(model=MODEL, temperature=0, **first.request()).choices[0]
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    expected = first.answer.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == (expected.name, expected.arguments)
    second = dialogues.tool_answer(call.id)
    reply = client.chat.completions.create(model=MODEL, temperature=0, **second.request()).choices[0].message
    assert reply.content.strip() == second.answer.content


def test_completion_is_deterministic(client: OpenAI) -> None:
    """Plain completions work and say the same twice at temperature 0."""
    prompt = dialogues.TEXTS[0].splitlines()[0] + "\n"
    texts = {
        client.completions.create(model=MODEL, prompt=prompt, max_tokens=24, temperature=0).choices[0].text
        for _ in range(2)
    }
    assert len(texts) == 1
    assert dialogues.ENGLISH.answer.content.startswith(texts.pop().strip()[:20])


def test_a_workers_own_error_passes_unchanged(client: OpenAI) -> None:
    """vLLM's refusal of a bad field, whose value is within the gateway's bounds, reaches the client as vLLM said it."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], temperature=1, top_p=0
        )
    assert "top_p" in caught.value.message
    assert "x-gateway-error" not in caught.value.response.headers


def test_unknown_model_is_404(client: OpenAI) -> None:
    """A name that no card declares is model_not_found, and the message lists what is ready."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nothing", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "model_not_found"
    assert MODEL in caught.value.message


def test_readiness_names_the_model(stack: Stack) -> None:
    """/ready answers 200 with the ready models once there is one."""
    status, body = get(f"{GATEWAY}/ready")
    assert (status, json.loads(body)["models"]) == (200, [MODEL])
    assert stack.slug_status(SLUG)["state"] == "ready"
