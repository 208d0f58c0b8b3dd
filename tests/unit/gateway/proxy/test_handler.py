"""What a request is to the queue: its class and its cost."""

import pytest

from gateway.body.reader import ParsedBody
from gateway.config.api_keys import ANYONE, ApiKey, Priority
from gateway.proxy.account import MAX_ANSWERS
from gateway.proxy.handler import MAX_COST_TOKENS, UNTOLD_TOKENS, cost_of, priority_of

TIERS = ["auto", "default", "flex", "priority", "scale", "standard_only", "", None, 7, ["flex"]]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("priority", Priority)
def test_a_client_may_only_lower_its_class(tier: object, priority: Priority) -> None:
    """By OpenAI's tier for work that may wait; no value raises it."""
    found = priority_of(ApiKey("a", priority=priority), {"service_tier": tier, "priority": 0})
    assert found is (Priority.BULK if tier == "flex" else priority)
    assert priority_of(ANYONE, {"service_tier": tier}) is Priority.NORMAL


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, UNTOLD_TOKENS),
        ({"max_tokens": None}, UNTOLD_TOKENS),
        ({"max_tokens": "9"}, UNTOLD_TOKENS),
        ({"max_tokens": 9}, 9),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": 5, "max_completion_tokens": 9}, 9),
        ({"max_tokens": -5}, 0),
        ({"max_tokens": 10**9}, MAX_COST_TOKENS),
        ({"max_tokens": 9, "n": 4}, 36),
        ({"n": 2}, 2 * UNTOLD_TOKENS),
        ({"max_tokens": 9, "n": "4"}, 9),
        ({"max_tokens": 9, "n": -4}, 9),
        ({"max_tokens": 9, "n": 10**9}, 9 * MAX_ANSWERS),
    ],
)
def test_a_request_costs_about_as_many_tokens_as_it_may_come_to(
    fields: dict[str, object], answer: int
) -> None:
    """Those of the prompt by the size of the body. Neither part is without bound."""
    assert cost_of(ParsedBody("m", b" " * 400, fields)) == 1 + 100 + answer
    assert cost_of(ParsedBody("m", b" " * 2_000_000, fields)) == 1 + MAX_COST_TOKENS + answer
