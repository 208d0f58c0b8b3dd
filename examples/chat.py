"""A chat with the OpenAI client: the model's reasoning, then its answer."""

from client import clear_errors, connect, expect_choices, options, reasoning_of

args = options(__doc__, "A train leaves at 14:10 and arrives at 15:05. How long is the ride?").parse_args()

with clear_errors(args):
    answer = connect(args).chat.completions.create(
        model=args.model, messages=[{"role": "user", "content": args.prompt}]
    )

expect_choices(answer)
message = answer.choices[0].message
print("Reasoning:", reasoning_of(message).strip() or "(none)")
print("Answer:", (message.content or "").strip())
