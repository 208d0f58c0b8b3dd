"""What `make demo` shows on the terminal: the twin's dialogues through the gateway, with the openai client."""

import os
import sys
import urllib.error
import urllib.request

from openai import OpenAI

from tests.twins import dialogues

MODEL = "qwen3-0.6b"
GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000")
PAGES = {
    "Gateway": f"{GATEWAY}/v1",
    "Prometheus": "http://127.0.0.1:9090",
    "Grafana": "http://127.0.0.1:3000",
}
GREY, PLAIN = ("\033[90m", "\033[0m") if sys.stdout.isatty() else ("", "")


def main() -> None:
    client = OpenAI(base_url=f"{GATEWAY}/v1", api_key="any", timeout=60)
    print("\nmodels:", ", ".join(model.id for model in client.models.list()))
    for turn in (dialogues.ENGLISH, dialogues.REASONING, dialogues.CHINESE):
        print(f"\nyou> {turn.messages[-1]['content']}")
        show_stream(client, turn)
    show_tool_call(client)
    print(
        "\nThe model is a twin of a few MB that recites these dialogues; all around it is the real stack.\n"
    )
    for name, url in PAGES.items():
        print(f"  {name:<11} {url}" + ("" if answers(url) else "   (not running here)"))
    print(f"\ntry: curl -s {GATEWAY}/v1/models      clean up: make demo-down")


def show_stream(client: OpenAI, turn: dialogues.Turn) -> None:
    """Prints one answer as it comes, its reasoning in grey, without the blank lines that Qwen3 begins with."""
    print(f"{MODEL}> ", end="", flush=True)
    blank = True
    for chunk in client.chat.completions.create(model=MODEL, stream=True, temperature=0, **turn.request()):
        delta = chunk.choices[0].delta
        thought = getattr(delta, "reasoning", None)
        text = thought or delta.content or ""
        text = text.lstrip() if blank else text
        blank = text.endswith("\n") or (blank and not text)
        print(f"{GREY}{text}{PLAIN}" if thought else text, end="", flush=True)
    print()


def show_tool_call(client: OpenAI) -> None:
    """Prints a tool call in two rounds: the model asks for the tool, the tool answers, the model answers."""
    turn = dialogues.TOOL_CALL
    print(f"\nyou> {turn.messages[-1]['content']}   (tool: get_weather)")
    reply = client.chat.completions.create(model=MODEL, temperature=0, **turn.request())
    call = (reply.choices[0].message.tool_calls or [])[0]
    print(f"{MODEL}> calls {call.function.name}({call.function.arguments})")
    print(f"tool> {dialogues.WEATHER_RESULT}")
    show_stream(client, dialogues.tool_answer(call.id))


def answers(url: str) -> bool:
    """Whether anything at all answers HTTP there."""
    try:
        urllib.request.urlopen(url, timeout=3)  # an address of our own, printed above
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
