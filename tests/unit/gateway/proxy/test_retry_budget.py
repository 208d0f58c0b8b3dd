"""The budget of retries."""

from hypothesis import given
from hypothesis import strategies as some

from gateway.proxy.retry_budget import RESERVE, SHARE, RetryBudget


@given(some.lists(some.booleans(), max_size=400))
def test_retries_are_a_share_of_the_requests(fails: list[bool]) -> None:
    """Whatever fails, attempts stay within a fifth more than requests, beyond the first few."""
    budget, retried = RetryBudget(), 0
    for failed in fails:
        budget.earn()
        retried += failed and budget.spend()
    assert retried <= len(fails) * SHARE + RESERVE


def test_a_quiet_gateway_may_retry() -> None:
    """The first request's worker may be the one that has died."""
    budget = RetryBudget()
    assert budget.spend()
