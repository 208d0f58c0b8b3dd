"""Anthropic's own client, on /v1/messages."""

import anthropic
from asked import GATEWAY, MESSAGES, MODEL, NOBODY, say

client = anthropic.Anthropic(base_url=GATEWAY, api_key="any", max_retries=0)
asked = {"max_tokens": 300, "messages": MESSAGES, "extra_body": {"temperature": 0}}

whole = client.messages.create(model=MODEL, **asked)
with client.messages.stream(model=MODEL, **asked) as stream:
    pieces = list(stream.text_stream)
try:
    client.messages.create(model=NOBODY, **asked)
except anthropic.NotFoundError as error:
    status, kind = error.status_code, error.body["error"]["type"]
tokens = client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens
text = "".join(block.text for block in whole.content if block.type == "text")
say(text=text, pieces=pieces, status=status, error=kind, tokens=tokens)
