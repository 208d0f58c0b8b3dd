"""What several processes tell, as of one."""

from gateway.telemetry.merging import metrics, workers

ONE = """\
# HELP gateway_requests_total Requests.
# TYPE gateway_requests_total counter
gateway_requests_total{model="a"} 3.0
# HELP gateway_queue_age_seconds Age.
# TYPE gateway_queue_age_seconds gauge
gateway_queue_age_seconds{model="a"} 4.0
# HELP gateway_processes Processes.
# TYPE gateway_processes gauge
gateway_processes 1.0
# HELP gateway_queue_length Length.
# TYPE gateway_queue_length gauge
gateway_queue_length{model="a"} 2.0
# HELP gateway_loop_lag_seconds Lag.
# TYPE gateway_loop_lag_seconds histogram
gateway_loop_lag_seconds_bucket{le="0.1"} 5.0
gateway_loop_lag_seconds_bucket{le="+Inf"} 6.0
gateway_loop_lag_seconds_count 6.0
gateway_loop_lag_seconds_sum 0.5
"""


def test_what_counts_adds_up_and_of_the_rest_the_highest_holds() -> None:
    """Counters, histograms and requests that wait are sums; an age is not."""
    other = ONE.replace("} 4.0", "} 9.0").replace('model="a"} 3.0', 'model="b"} 1.0')
    text = metrics([ONE, other]).decode()
    for line in (
        'gateway_requests_total{model="a"} 3.0',
        'gateway_requests_total{model="b"} 1.0',
        'gateway_queue_age_seconds{model="a"} 9.0',
        'gateway_queue_length{model="a"} 4.0',
        'gateway_loop_lag_seconds_bucket{le="+Inf"} 12.0',
        "gateway_loop_lag_seconds_sum 1.0",
        "gateway_processes 2.0",
    ):
        assert f"{line}\n" in text, line
    assert text.count("# TYPE gateway_requests_total counter") == 1


def test_workers_have_the_requests_of_all() -> None:
    """A worker that another process does not know yet counts nothing there."""

    def page(*workers: tuple[str, int]) -> dict[str, object]:
        found = [{"address": address, "state": "ready", "in_flight": count} for address, count in workers]
        return {"slugs": [{"slug": "s", "state": "ready", "workers": found}]}

    assert workers([page(("a", 1), ("b", 2)), page(("a", 4)), {"slugs": []}]) == page(("a", 5), ("b", 2))
