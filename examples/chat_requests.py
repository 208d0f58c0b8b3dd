"""A chat with plain HTTP, without an OpenAI library: one POST, and the JSON that comes back."""

import requests
from client import options, refused, unreachable

args = options(__doc__, "Explain the significance of the number 42.").parse_args()

try:
    response = requests.post(
        f"{args.base_url}/chat/completions",
        headers={"Authorization": f"Bearer {args.api_key}"},
        json={"model": args.model, "messages": [{"role": "user", "content": args.prompt}]},
        timeout=600,
    )
except requests.RequestException as error:
    unreachable(args.base_url, error)

if response.status_code != 200 or not response.headers["content-type"].startswith("application/json"):
    refused(response.status_code, response.text)

answer = response.json()
print((answer["choices"][0]["message"]["content"] or "").strip())
print(f"({answer['usage']['completion_tokens']} tokens)")
