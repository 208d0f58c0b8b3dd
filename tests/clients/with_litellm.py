"""LiteLLM as a client."""

import litellm
from asked import GATEWAY, MESSAGES, MODEL, NOBODY, say

litellm.suppress_debug_info = True
asked = {
    "api_base": f"{GATEWAY}/v1",
    "api_key": "any",
    "temperature": 0,
    "messages": MESSAGES,
    "num_retries": 0,
}

whole = litellm.completion(model=f"openai/{MODEL}", **asked)
stream = litellm.completion(model=f"openai/{MODEL}", stream=True, **asked)
pieces = [piece.choices[0].delta.content or "" for piece in stream]
try:
    litellm.completion(model=f"openai/{NOBODY}", **asked)
except litellm.NotFoundError as error:
    status, told = error.status_code, str(error)
code = "model_not_found" if NOBODY in told else told
say(text=whole.choices[0].message.content, pieces=pieces, status=status, error=code)
