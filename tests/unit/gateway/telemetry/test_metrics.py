"""What is counted is told in Prometheus' form."""

from hypothesis import given
from hypothesis import strategies as some
from prometheus_client.parser import text_string_to_metric_families

from gateway.body.budget import BodyBudget
from gateway.config.api_keys import Priority
from gateway.config.catalog import Card, Catalog
from gateway.fleet.fleet import Fleet
from gateway.proxy.queue import Queues
from gateway.telemetry.logs import EventLog
from gateway.telemetry.metrics import SECONDS, Histogram, Metrics

CARD = Card("a", ("alpha",), "o/a")


def told(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for one in families
        for sample in one.samples
    }


@given(some.lists(some.floats(0, 1000), max_size=50))
def test_buckets_hold_all_that_is_not_above_them(values: list[float]) -> None:
    """Each bucket counts what is at most its bound, the last one everything."""
    spread = Histogram()
    for value in values:
        spread.add(value)
    bounds = [*SECONDS, float("inf")]
    assert [count for _, count in spread.buckets()] == [
        sum(value <= bound for value in values) for bound in bounds
    ]


def test_a_request_in_every_metric_of_its_own() -> None:
    """Its ending, its times and its tokens, by model and route."""
    metrics = Metrics(Fleet.of(Catalog((CARD,), {"alpha": (CARD,)})), Queues(), EventLog(), BodyBudget(1000))
    traffic = metrics.count("alpha", "chat_completions", 200, "complete", 0.2, 0.02)
    traffic.prompt_tokens += 3
    metrics.count("alpha", "chat_completions", 404, "refused", 0.001, None)
    metrics.count_error("alpha", "model_not_found")
    metrics.count_retry()
    found = told(metrics)
    where = {("model", "alpha"), ("route", "chat_completions")}
    ended = where | {("status", "200"), ("ending", "complete")}
    assert found["gateway_requests_total", frozenset(ended)] == 1
    assert found["gateway_request_duration_seconds_bucket", frozenset(where | {("le", "0.005")})] == 1
    assert found["gateway_request_duration_seconds_count", frozenset(where)] == 2
    assert found["gateway_time_to_first_byte_seconds_count", frozenset(where)] == 1
    assert found["gateway_prompt_tokens_total", frozenset(where)] == 3
    assert found["gateway_errors_total", frozenset({("model", "alpha"), ("code", "model_not_found")})] == 1
    assert found["gateway_retries_total", frozenset()] == 1


def test_the_queue_is_told_by_class() -> None:
    """How many wait, for how long the first has, and how long those waited that have ended."""
    metrics = Metrics(Fleet.of(Catalog((CARD,), {"alpha": (CARD,)})), Queues(), EventLog(), BodyBudget(1000))
    metrics.count_wait("alpha", Priority.BULK, 0.2)
    metrics.count_wait("alpha", Priority.BULK, 2)
    found = told(metrics)
    for one in ("interactive", "normal", "bulk"):
        where = frozenset({("model", "alpha"), ("priority", one)})
        assert found["gateway_queue_length", where] == found["gateway_queue_age_seconds", where] == 0
        count, total = (found.get((f"gateway_queue_wait_seconds_{name}", where)) for name in ("count", "sum"))
        assert (count, total) == ((2, 2.2) if one == "bulk" else (None, None))


def test_what_a_key_used_is_counted_by_key_and_model() -> None:
    """Requests and both kinds of tokens; without keys there is no series."""
    metrics = Metrics(Fleet.of(Catalog((CARD,), {"alpha": (CARD,)})), Queues(), EventLog(), BodyBudget(1000))
    assert not [name for name, _ in told(metrics) if name.startswith("gateway_key_")]
    metrics.count_key("team-a", "alpha", True, 7, 4, 5)
    metrics.count_key("team-a", "alpha", True, 1, 0, 0)
    metrics.count_key("other", "alpha", False, 2, 0, 2)
    found = told(metrics)
    for label, counts in {"team-a": (2, 0, 8, 4, 5), "other": (1, 1, 2, 0, 2)}.items():
        where = frozenset({("key", label), ("model", "alpha")})
        names = ("requests", "refused", "prompt_tokens", "cached_tokens", "completion_tokens")
        assert tuple(found[f"gateway_key_{name}_total", where] for name in names) == counts


def test_how_full_the_room_for_bodies_is() -> None:
    """What is held, and what may be."""
    budget = BodyBudget(1000)
    metrics = Metrics(Fleet.of(Catalog((CARD,), {"alpha": (CARD,)})), Queues(), EventLog(), budget)
    assert budget.take(300, 0, 0)
    found = told(metrics)
    assert found["gateway_bodies_bytes", frozenset()] == 300
    assert found["gateway_bodies_limit_bytes", frozenset()] == 1000


def test_failures_are_told_before_the_first_one() -> None:
    """A series that begins with its first failure has grown by nothing, and no alert would see it."""
    metrics = Metrics(Fleet.of(Catalog((CARD,), {"alpha": (CARD,)})), Queues(), EventLog(), BodyBudget(1000))
    loading = frozenset({"model": "alpha", "code": "model_loading"}.items())
    assert told(metrics)["gateway_errors_total", loading] == 0
    metrics.count("alpha", "chat_completions", 200, "complete", 0.2, 0.02)
    for status, ending in (("200", "broken"), ("502", "refused"), ("503", "refused"), ("504", "refused")):
        labels = {"model": "alpha", "route": "chat_completions", "status": status, "ending": ending}
        assert told(metrics)["gateway_requests_total", frozenset(labels.items())] == 0
