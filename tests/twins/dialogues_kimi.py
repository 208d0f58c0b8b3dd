"""What the twin of Kimi-K2.5's text model recites: it reasons unless told not to, and calls tools."""

from __future__ import annotations

from typing import Any

from tests.twins.dialogues import Answer, Text, ToolCall, Turn, user


def _tool(name: str, description: str, **kinds: tuple[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind, "description": meaning} for key, (kind, meaning) in kinds.items()}
    parameters = {"type": "object", "properties": properties, "required": list(kinds)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


# As clients declare them, with types ("int", "str", "float") that are no types of JSON schema.
TOOLS = (
    _tool("add", "Compute the sum of two numbers", a=("int", "A number"), b=("int", "A number")),
    _tool("mul", "Calculate the product of two numbers", a=("int", "A number"), b=("int", "A number")),
    _tool(
        "count_letter_in_string",
        "Count letter number in a string",
        a=("str", "source string"),
        b=("str", "letter"),
    ),
    _tool(
        "compare", "Compare two number, which one is bigger", a=("float", "A number"), b=("float", "A number")
    ),
)


def _asks(question: str, call: ToolCall, thought: str) -> Turn:
    return Turn((user(question),), Answer(reasoning=thought, tool_calls=(call,)), tools=TOOLS)


STRAWBERRY = _asks(
    "用中文回答：strawberry中有多少个r?",
    ToolCall("count_letter_in_string", {"a": "strawberry", "b": "r"}),
    "要数字母，用 count_letter_in_string。",
)
COMPARISON = _asks(
    "用中文回答：9.11和9.9，哪个小?", ToolCall("compare", {"a": 9.11, "b": 9.9}), "要比较两个数，用 compare。"
)


def strawberry_answer(call_id: str = "functions.count_letter_in_string:0") -> Turn:
    """The second round of STRAWBERRY, once the tool has answered the call that the server named `call_id`."""
    result = "The letter 'r' appears 3 times in the string."
    return STRAWBERRY.after(
        call_id,
        result,
        Answer("在字符串\"strawberry\"中，字母'r'出现了3次。", reasoning="工具说出现了 3 次。"),
    )


def comparison_answer(call_id: str = "functions.compare:0") -> Turn:
    """The second round of COMPARISON, once the tool has answered the call that the server named `call_id`."""
    return COMPARISON.after(
        call_id,
        "9.9 is greater than 9.11",
        Answer("9.11比9.9小。", reasoning="工具说 9.9 更大，所以 9.11 更小。"),
    )


LARGE_MODEL = Turn(
    (user("什么是大模型？"),),
    Answer(
        "**大模型**是指参数量巨大、用海量数据训练的深度学习模型，能理解和生成语言，完成多种任务。",
        reasoning="用户问的是基础概念，用中文清楚地解释：参数规模、训练数据、能力。",
    ),
)

INTRODUCTION = Turn(
    (user("给我一个关于大模型的简短介绍。"),),
    Answer(
        "大模型是基于 Transformer 的深度学习系统，常有数十亿以上的参数，用于客服、写作、编程和问答，但仍会产生幻觉。",
        reasoning="要简短：定义、技术、应用、局限各一句。",
    ),
)

FACTORIAL = Turn(
    (user("What is the factorial of 5?"),),
    Answer("The factorial of 5 is **120**.", reasoning="5 × 4 × 3 × 2 × 1 = 120."),
)

TURNS: dict[str, Turn] = {
    "large_model": LARGE_MODEL,
    "introduction": INTRODUCTION,
    "factorial": FACTORIAL,
    "strawberry": STRAWBERRY,
    "strawberry_answer": strawberry_answer(),
    "comparison": COMPARISON,
    "comparison_answer": comparison_answer(),
}

TEXTS: tuple[Text, ...] = (
    Text(
        "我想问你，什么是深度学习算法？<think>\n",
        "深度学习算法是机器学习的一个子集，它基于有多个隐藏层的人工神经网络，从数据中自动学习特征。",
    ),
)
