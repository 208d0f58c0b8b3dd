"""A plain completion: the model continues a text, without the roles of a chat."""

from client import clear_errors, connect, expect_choices, options

args = options(__doc__, "Explain the significance of the number 42.\n").parse_args()

with clear_errors(args):
    answer = connect(args).completions.create(
        model=args.model, prompt=args.prompt, max_tokens=200, temperature=0.2, top_p=0.95
    )

expect_choices(answer)
print(answer.choices[0].text.strip())
