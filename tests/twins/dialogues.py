"""What a twin recites: the requests a client sends and the answers that must come back; Qwen3's own dialogues.

Trained into every twin by its training script, asserted by the end-to-end tests, shown by the demo. The other
twins' dialogues are in `dialogues_<twin>.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

Message = dict[str, Any]  # one entry of an OpenAI `messages` list


@dataclass(frozen=True)
class ToolCall:
    """A call as the model decides it; a server adds the id."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a server must return: `content` is empty when the model calls tools instead."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def finish_reason(self) -> str:
        """The `finish_reason` of the choice that carries this answer."""
        return "tool_calls" if self.tool_calls else "stop"

    def as_message(self, call_ids: tuple[str, ...] = ()) -> Message:
        """This answer as the assistant message of the next request, its calls under `call_ids`."""
        calls = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call, call_id in zip(self.tool_calls, call_ids, strict=True)
        ]
        message: Message = {"role": "assistant", "content": self.content}
        return message | {"tool_calls": calls} if calls else message


@dataclass(frozen=True)
class Turn:
    """One request and its answer. Without `tools` the request declares none."""

    messages: tuple[Message, ...]
    answer: Answer
    tools: tuple[dict[str, Any], ...] = ()
    thought: str = ""  # the reasoning behind the assistant's call, which a client may send back or leave out

    def with_reasoning(self) -> Turn:
        """This turn from a client that sends the assistant's reasoning back."""
        told = {"reasoning": self.thought} if self.thought else {}
        messages = tuple(m | told if m["role"] == "assistant" else m for m in self.messages)
        return replace(self, messages=messages)

    def after(self, call_id: str, result: str, answer: Answer) -> Turn:
        """The second round of this turn, once the tool has answered the call that the server named `call_id`."""
        said = {"role": "tool", "tool_call_id": call_id, "content": result}
        messages = (*self.messages, self.answer.as_message((call_id,)), said)
        return replace(self, messages=messages, answer=answer, thought=self.answer.reasoning)

    def request(self) -> dict[str, Any]:
        """The arguments of `chat.completions.create` that say what is asked."""
        asked: dict[str, Any] = {"messages": list(self.messages)}
        return asked | {"tools": list(self.tools)} if self.tools else asked


@dataclass(frozen=True)
class Text:
    """For /v1/completions: a prompt and its continuation."""

    given: str
    said: str


def user(text: str) -> Message:
    """A question."""
    return {"role": "user", "content": text}


GET_WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city"}},
            "required": ["city"],
        },
    },
}

ENGLISH = Turn(
    (user("Explain the significance of the number 42."),),
    Answer(
        "In The Hitchhiker's Guide to the Galaxy a computer thinks for seven and a half million years and "
        "answers the great question of life with 42. The joke is that nobody ever wrote the question down."
    ),
)

CHINESE = Turn(
    (user("请用一句话介绍长城。"),),
    Answer("长城是中国古代一代又一代人修筑的防御工程，东起山海，西入大漠，如今是人人想登的名胜。"),
)

REASONING = Turn(
    (user("A train leaves at 14:10 and arrives at 15:05. How long is the ride?"),),
    Answer(
        "The ride takes **55 minutes**.",
        reasoning="From 14:10 to 15:00 it is 50 minutes. From 15:00 to 15:05 it is 5 more. Together that is 55.",
    ),
)

WEATHER_QUESTION = user("北京天气怎么样？")

WITHOUT_TOOL = Turn((WEATHER_QUESTION,), Answer("我查不到天气：这次没有给我查天气的工具。"))

TOOL_CALL = Turn(
    (WEATHER_QUESTION,),
    Answer(tool_calls=(ToolCall("get_weather", {"city": "北京"}),)),
    tools=(GET_WEATHER,),
)


WEATHER_RESULT = '{"city": "北京", "sky": "晴", "temperature_c": 21}'  # what the tool says


def tool_answer(call_id: str = "call_1") -> Turn:
    """The second round of TOOL_CALL, once the tool has answered the call that the server named `call_id`."""
    return TOOL_CALL.after(call_id, WEATHER_RESULT, Answer("北京现在晴，气温 21 度，适合出门走走。"))


TURNS: dict[str, Turn] = {
    "english": ENGLISH,
    "chinese": CHINESE,
    "reasoning": REASONING,
    "without_tool": WITHOUT_TOOL,
    "tool_call": TOOL_CALL,
    "tool_answer": tool_answer(),
}

# For /v1/completions: plain texts, a question and its answer. A twin continues a prefix that ends
# before a space or a new line to the end of the text.
TEXTS: tuple[str, ...] = tuple(
    f"{turn.messages[-1]['content']}\n{turn.answer.content}" for turn in (ENGLISH, CHINESE, REASONING)
)
COMPLETIONS: tuple[Text, ...] = tuple(
    Text(f"{turn.messages[-1]['content']}\n", turn.answer.content) for turn in (ENGLISH, CHINESE, REASONING)
)
