"""Tool calling in two rounds: the model asks for a function, we call it, and the model answers with its result."""

import json
from collections.abc import Callable
from typing import Any

from client import WRONG_ANSWER, clear_errors, connect, expect_choices, fail, options
from openai.types.chat import ChatCompletionMessage

WEATHER = {"北京": ("晴", 21), "beijing": ("clear", 21), "上海": ("多云", 24), "shanghai": ("cloudy", 24)}


def get_weather(city: str) -> str:
    """A real program would ask a weather service here."""
    if city.lower() not in WEATHER:
        return f"error: there is no weather for {city}"
    sky, degrees = WEATHER[city.lower()]
    return json.dumps({"city": city, "sky": sky, "temperature_c": degrees}, ensure_ascii=False)


def add(a: float, b: float) -> str:
    return str(a + b)


def mul(a: float, b: float) -> str:
    return str(a * b)


def compare(a: float, b: float) -> str:
    return f"{a} is equal to {b}" if a == b else f"{max(a, b)} is greater than {min(a, b)}"


def count_letter_in_string(text: str, letter: str) -> str:
    return f"{letter!r} occurs {text.lower().count(letter.lower())} times in {text!r}"


def tool(function: Callable[..., str], description: str, **parameters: tuple[str, str]) -> dict[str, Any]:
    """Declares a function to the model; a parameter is its JSON type and what it means."""
    properties = {name: {"type": kind, "description": text} for name, (kind, text) in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    named = {"name": function.__name__, "description": description, "parameters": schema}
    return {"type": "function", "function": named}


NUMBERS = {"a": ("number", "First number"), "b": ("number", "Second number")}
FUNCTIONS = {f.__name__: f for f in (get_weather, add, mul, compare, count_letter_in_string)}
SETS = {
    "weather": [tool(get_weather, "Current weather in a city", city=("string", "Name of the city"))],
    "numbers": [
        tool(add, "Sum of two numbers", **NUMBERS),
        tool(mul, "Product of two numbers", **NUMBERS),
        tool(compare, "Which of two numbers is greater", **NUMBERS),
        tool(
            count_letter_in_string,
            "How often a letter occurs in a text",
            text=("string", "The text"),
            letter=("string", "The letter"),
        ),
    ],
}
QUESTIONS = {
    "weather": "北京天气怎么样？",
    "numbers": "How many times does the letter r occur in strawberry?",
}


def call(name: str, arguments: str) -> str:
    """The function's result as text; what the model got wrong is told to the model, which can do better."""
    try:
        return FUNCTIONS[name](**json.loads(arguments))
    except (KeyError, TypeError, ValueError) as error:
        return f"error: {type(error).__name__}: {error}"


def main() -> None:
    parser = options(str(__doc__), None)
    parser.add_argument("--tools", choices=SETS, default="weather", help="which functions the model may call")
    args = parser.parse_args()
    client = connect(args)
    messages: list[Any] = [{"role": "user", "content": args.prompt or QUESTIONS[args.tools]}]

    def ask() -> ChatCompletionMessage:
        with clear_errors(args):
            answer = client.chat.completions.create(
                model=args.model, messages=messages, tools=SETS[args.tools], temperature=0.01, top_p=0.95
            )
        expect_choices(answer)
        return answer.choices[0].message

    message = ask()
    if not message.tool_calls:
        fail(WRONG_ANSWER, f"the model called no function; it said: {message.content}")
    messages.append(message.model_dump(exclude_none=True))
    for asked in message.tool_calls:
        result = call(asked.function.name, asked.function.arguments)
        print(f"Call: {asked.function.name}({asked.function.arguments}) -> {result}")
        messages.append({"role": "tool", "tool_call_id": asked.id, "content": result})
    print("Answer:", (ask().content or "").strip())


if __name__ == "__main__":
    main()
