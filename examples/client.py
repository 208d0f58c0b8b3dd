"""What the examples share: where the server is, which model to ask, and one clear line when that does not work."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from openai import APIConnectionError, APIError, APIStatusError, OpenAI

try:
    from httpx2 import HTTPError  # what openai 3 sends with
except ImportError:
    from httpx import HTTPError  # type: ignore[assignment]  # what its older versions send with

# Exit codes; 2 is argparse's own, for arguments that mean nothing.
UNREACHABLE, NOT_READY, WRONG_ANSWER = 3, 4, 5
NOT_READY_CODES = {"model_not_found", "model_loading", "no_worker_available"}


def options(description: str, prompt: str | None) -> argparse.ArgumentParser:
    """Arguments of every example; each takes its default from the environment."""
    env = os.environ.get
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base-url", default=env("OPENAI_BASE_URL") or "http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default=env("OPENAI_API_KEY") or "any")
    parser.add_argument("--model", default=env("MODEL") or "qwen3-0.6b", help="a name of GET /v1/models")
    parser.add_argument("prompt", nargs="?", default=prompt)
    return parser


def connect(args: argparse.Namespace) -> OpenAI:
    """The OpenAI client, with the address changed and nothing else. An error is shown at once, not retried."""
    return OpenAI(base_url=args.base_url, api_key=args.api_key, max_retries=0)


def reasoning_of(message: object) -> str:
    """What the model thought before it answered, of a message or of a piece of a stream."""
    older = getattr(message, "reasoning_content", None)  # the field's name in servers before 2026
    return getattr(message, "reasoning", None) or older or ""


@contextmanager
def clear_errors(args: argparse.Namespace) -> Iterator[None]:
    """Ends the program with one line when a request inside fails."""
    try:
        yield
    except APIConnectionError as error:
        unreachable(args.base_url, error.__cause__ or error)
    except APIStatusError as error:
        refused(error.status_code, error.response.text)
    except (APIError, HTTPError) as error:
        fail(WRONG_ANSWER, f"the answer broke off: {error}")


def unreachable(base_url: str, why: object) -> NoReturn:
    fail(UNREACHABLE, f"nothing answers at {base_url} ({why}): start it (docker compose up -d SLUG)")


def refused(status: int, text: str) -> NoReturn:
    """Ends because of an answer that is not 200; `text` is OpenAI's error object, or whatever came instead."""
    try:
        error = json.loads(text)["error"]
        message, code = error["message"], error.get("code")
    except (ValueError, KeyError, TypeError):
        message, code = text[:200], None
    fail(NOT_READY if code in NOT_READY_CODES else WRONG_ANSWER, f"{status}: {message}")


def expect_choices(answer: object) -> None:
    """Ends the program if a page came that is no answer at all, such as that of another server."""
    if not getattr(answer, "choices", None):
        fail(WRONG_ANSWER, f"this is no answer of an OpenAI server: {str(answer)[:200]!r}")


def fail(code: int, what: str) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: {' '.join(what.split())}", file=sys.stderr)
    raise SystemExit(code)
