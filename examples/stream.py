"""A chat that is printed while the model generates it: first the reasoning, then the answer."""

from client import WRONG_ANSWER, clear_errors, connect, fail, options, reasoning_of

args = options(__doc__, "A train leaves at 14:10 and arrives at 15:05. How long is the ride?").parse_args()


def show(kind: str, text: str, shown: str) -> str:
    """Prints one piece, under a heading of its own where the kind changes; returns the kind shown last."""
    if kind == shown:
        print(text, end="", flush=True)
    elif text.strip():
        print("\n" * bool(shown) + f"{kind}: {text.lstrip()}", end="", flush=True)
        return kind
    return shown


shown, finished = "", False
with clear_errors(args):
    chunks = connect(args).chat.completions.create(
        model=args.model, messages=[{"role": "user", "content": args.prompt}], stream=True
    )
    for chunk in chunks:
        for choice in chunk.choices:  # the last chunk may carry none
            shown = show("Reasoning", reasoning_of(choice.delta), shown)
            shown = show("Answer", choice.delta.content or "", shown)
            finished = finished or choice.finish_reason is not None
print()
if not finished:
    fail(WRONG_ANSWER, "the stream ended before the answer did")
