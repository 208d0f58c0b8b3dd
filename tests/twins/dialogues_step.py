"""What the twin of Step-3.5-Flash recites: it always reasons first, and calls tools."""

from __future__ import annotations

from typing import Any

from tests.twins.dialogues import Answer, Text, ToolCall, Turn, user

GET_WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a given city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {
                    "type": "string",
                    "description": "The name of the city to query weather for, e.g., beijing, shanghai, new york.",
                },
            },
            "required": ["city"],
        },
    },
}

NUMBER_42 = Turn(
    (user("Explain the significance of the number 42."),),
    Answer(
        'The number **42** is most famously known as the **"Answer to the Ultimate Question of Life, the Universe, '
        "and Everything\"** in Douglas Adams' beloved sci-fi series *The Hitchhiker's Guide to the Galaxy*.",
        reasoning="Hmm, the user is asking about the significance of the number 42. This is a classic pop culture "
        "reference, so they're likely expecting an explanation tied to Douglas Adams.",
    ),
)


def _asks(question: str, city: str, thought: str) -> Turn:
    call = ToolCall("get_weather", {"city": city})
    return Turn((user(question),), Answer(reasoning=thought, tool_calls=(call,)), tools=(GET_WEATHER,))


SHANGHAI = _asks(
    "what's the weather like in shanghai?",
    "shanghai",
    "The user wants the weather in Shanghai. I have a tool for that.",
)
BEIJING = _asks("北京天气怎么样？", "beijing", "用户想知道北京的天气，我来查一下。")


def shanghai_answer(call_id: str = "call_1") -> Turn:
    """The second round of SHANGHAI, once the tool has answered the call that the server named `call_id`."""
    return SHANGHAI.after(
        call_id,
        "The weather in shanghai is Partly cloudy with a temperature of 6.0°C.",
        Answer(
            "The weather in Shanghai is partly cloudy with a temperature of 6°C.",
            reasoning="The tool says partly cloudy and 6.0°C.",
        ),
    )


def beijing_answer(call_id: str = "call_1") -> Turn:
    """The second round of BEIJING, once the tool has answered the call that the server named `call_id`."""
    return BEIJING.after(
        call_id,
        "The weather in beijing is Overcast with a temperature of -5.7°C.",
        Answer("北京现在是阴天，气温 -5.7°C，出门多穿一点。", reasoning="工具说北京阴天，零下 5.7 度。"),
    )


TURNS: dict[str, Turn] = {
    "number_42": NUMBER_42,
    "shanghai": SHANGHAI,
    "shanghai_answer": shanghai_answer(),
    "beijing": BEIJING,
    "beijing_answer": beijing_answer(),
}

TEXTS: tuple[Text, ...] = (
    Text(
        "简要介绍一下 Step-3.5-Flash 模型。",
        "Step-3.5-Flash 是阶跃星辰（StepFun）推出的开源大语言模型，总参数 196B，每个词元只激活约 11B。",
    ),
)
