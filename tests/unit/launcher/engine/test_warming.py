"""What a vLLM is warmed with: the kinds that its card names, step by step, within a limit of time."""

from __future__ import annotations

import base64
import struct

import pytest

from launcher.engine.warming import TOGETHER, Step, Warming, plan
from launcher.settings import Capability


def names(*kinds: Capability) -> list[str]:
    return [step.name for step in plan(kinds)]


def test_each_kind_has_its_steps() -> None:
    text = ["short prompt", "long prompt", *(f"{count} at once" for count in TOGETHER)]
    assert names(Capability.TEXT) == text
    assert names(Capability.IMAGES, Capability.TOOLS) == ["tool call", "named tool call", "image"]
    assert names() == []


def test_as_many_are_asked_at_once_as_a_step_says_and_none_is_like_another() -> None:
    """No cache of prompts makes them one; greedy and sampled tokens are both made."""
    steps = plan((Capability.TEXT,))[2:]
    assert tuple(len(step.requests) for step in steps) == TOGETHER
    asked = [repr(request["messages"]) for step in steps for request in step.requests]
    assert len(set(asked)) == len(asked)
    assert {request["temperature"] for request in steps[-1].requests} == {0, 0.8}
    assert all(request["max_tokens"] == 8 for step in steps for request in step.requests)


def test_the_image_is_a_png() -> None:
    (step,) = plan((Capability.IMAGES,))
    url = step.requests[0]["messages"][0]["content"][0]["image_url"]["url"]  # type: ignore[index]
    picture = base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (224, 224)
    assert picture.endswith(b"IEND\xae\x42\x60\x82")


def test_when_the_time_is_up_the_rest_is_named_and_left_out() -> None:
    now = [0.0]
    steps = [Step("first", ()), Step("second", ()), Step("third", ())]
    warming = Warming(1, b"key", steps, 5.0, 300.0, lambda: now[0])
    warming.tick()
    now[0] = 5.0
    assert not warming.over
    warming.tick()
    assert warming.over
    assert (warming.done, warming.problems) == (["first"], ["no time was left for: second, third"])


@pytest.mark.parametrize("limit_s", [0.0, 5.0])
def test_without_steps_it_is_over_at_once(limit_s: float) -> None:
    assert Warming(1, b"key", (), limit_s, 300.0).over
