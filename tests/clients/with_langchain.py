"""LangChain's ChatOpenAI."""

import openai
from asked import GATEWAY, MESSAGES, MODEL, NOBODY, say
from langchain_openai import ChatOpenAI


def chat(model: str) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{GATEWAY}/v1", api_key="any", model=model, temperature=0, max_retries=0)


try:
    chat(NOBODY).invoke(MESSAGES)
except openai.NotFoundError as error:
    status, code = error.status_code, error.code
say(
    text=chat(MODEL).invoke(MESSAGES).content, pieces=[piece.content for piece in chat(MODEL).stream(MESSAGES)],
    status=status, error=code,
)  # fmt: skip
