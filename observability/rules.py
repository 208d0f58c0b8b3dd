"""Recording rules and alerts, from which observability/prometheus/rules.yaml is made.

usage: python -m observability.rules [--faster N]     prints the rules, every window and wait divided by N (default 1)
All durations are windows of `Windows`; what counts as too much is a figure of `Targets`.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

RUNBOOK = "docs/operations.md"
LEAST_RANGE_S = 15  # three scrapes: a rate needs two samples, and one may be late


@dataclass(frozen=True, slots=True)
class Targets:
    """What is promised to clients, and what a machine bears."""

    availability: float = 0.999  # of requests, over 30 days
    ttft_p95_s: float = 10
    queue_wait_s: float = 10
    kv_use: float = 0.95
    preemptions_per_s: float = 1
    loop_lag_p99_s: float = 0.05
    broken: float = 0.01  # of a model's requests
    least_failures: int = 5  # fewer in a window say nothing
    disk_share: float = 0.05  # free at least
    disk_spare: float = 0.2  # with more than that free a day's forecast says nothing
    gpu_celsius: int = 87
    gpu_memory_celsius: int = 95

    @property
    def budget(self) -> float:
        """The share of requests that may fail."""
        return round(1 - self.availability, 6)


@dataclass(frozen=True, slots=True)
class Windows:
    """Every duration, divided by `faster`, as Prometheus writes it."""

    faster: float = 1

    def range(self, seconds: float) -> str:
        """Over which a rate is taken."""
        return f"{max(LEAST_RANGE_S, round(seconds / self.faster))}s"

    def wait(self, seconds: float) -> str:
        """For which an alert's expression must hold."""
        return f"{round(seconds / self.faster)}s"


STARTING = '{phase=~"starting|loading|compiling|graphs|warm-up|warming"}'
MINUTE, HOUR, DAY = 60, 3600, 86400
XIDS = (
    48,
    63,
    64,
    74,
    79,
    94,
    95,
)  # double-bit ECC, row remapping, NVLink, off the bus, contained and uncontained ECC


@dataclass(frozen=True, slots=True)
class Alert:
    """`severity`: a `page` wakes somebody, a `ticket` waits for the morning. `says`: one line, with labels' values."""

    name: str
    severity: str
    expr: str
    wait: str
    says: str

    def rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.says, "runbook_url": f"{RUNBOOK}#{self.name.lower()}"},
        }


def bad(window: str, every: str) -> str:
    """Requests that failed by our fault; one for a model that is being loaded did not. `every`: all, as recorded."""
    failed = (
        f'sum by (model) (rate(gateway_requests_total{{status=~"5.."}}[{window}]) '
        f'or rate(gateway_requests_total{{ending="broken"}}[{window}]))'
    )
    loading = f'sum by (model) (rate(gateway_errors_total{{code="model_loading"}}[{window}]))'
    none = f"0 * {every}"
    return f"clamp_min(({failed} or {none}) - ({loading} or {none}), 0)"


BURNS = (
    ("ErrorBudgetBurnsFast", "page", 14.4, HOUR, 5 * MINUTE),
    ("ErrorBudgetBurns", "page", 6.0, 6 * HOUR, 30 * MINUTE),
    ("ErrorBudgetBurnsSlowly", "ticket", 3.0, DAY, 2 * HOUR),
    ("ErrorBudgetLeaks", "ticket", 1.0, 3 * DAY, 6 * HOUR),
)  # how many times faster than the budget lasts, over a long and a short window


def recordings(windows: Windows) -> Iterator[dict[str, Any]]:
    """What alerts and dashboards share; right across replicas."""
    for seconds in sorted({seconds for *_, long, short in BURNS for seconds in (long, short)}):
        window = windows.range(seconds)
        # first: rules of a group see what those before them recorded
        every = f"model:requests:rate_{named(seconds)}"
        yield record(every, f"sum by (model) (rate(gateway_requests_total[{window}]))")
        yield record(f"model:error_ratio:rate_{named(seconds)}", f"{bad(window, every)} / {every}")
    window = windows.range(5 * MINUTE)
    for quantile in (50, 95, 99):
        for what in ("time_to_first_byte", "time_between_chunks"):
            buckets = f"sum by (le, model) (rate(gateway_{what}_seconds_bucket[{window}]))"
            yield record(
                f"model:{what}_seconds:p{quantile}", f"histogram_quantile({quantile / 100}, {buckets})"
            )
    buckets = f"sum by (le, slug) (rate(vllm:time_to_first_token_seconds_bucket[{window}]))"
    yield record("slug:time_to_first_token_seconds:p95", f"histogram_quantile(0.95, {buckets})")
    yield record("slug:requests_running:sum", "sum by (slug) (vllm:num_requests_running)")
    yield record("slug:requests_waiting:sum", "sum by (slug) (vllm:num_requests_waiting)")
    yield record("slug:kv_cache_usage:max", "max by (slug) (vllm:kv_cache_usage_perc)")
    yield record(
        "slug:generation_tokens:rate", f"sum by (slug) (rate(vllm:generation_tokens_total[{window}]))"
    )


def record(name: str, expr: str) -> dict[str, Any]:
    return {"record": name, "expr": expr}


def named(seconds: int) -> str:
    """A real window's name, whatever it was divided by: `5m`, `6h`, `3d`."""
    for unit, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if seconds % unit == 0:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"


def in_state(state: str) -> str:
    """Models of which the gateway says so."""
    return f'max by (model) (gateway_model_state{{state="{state}"}}) == 1'


def is_down(windows: Windows) -> str:
    """Models that are down, or load though they were ready within the hour (or have been down since), and nobody
    stopped them: a name that Docker's back-off keeps away is back within a minute. A container that died and was
    started again is told as one that loads if the gateway looked while its name was gone. `up`: what a gateway said
    that was replaced is believed for five minutes."""
    down, loading, up = in_state("down"), in_state("loading"), f"unless on (model) {in_state('ready')}"
    state, hour, patience = "gateway_model_state", windows.range(HOUR), windows.range(150)
    served = f'max by (model) (max_over_time({state}{{state="ready"}}[{hour}])) == 1'
    told = 'max by (model) (ALERTS{alertname="ModelDown",alertstate="firing"})'
    gone = f'min_over_time({state}{{state="absent"}}[{patience}])'
    stopped = f"max by (model) (max_over_time({gone}[{hour}:15s])) == 1"
    return f"{down} {up} or {loading} {up} and on (model) ({served} or {told}) unless on (model) {stopped}"


def client_alerts(windows: Windows, targets: Targets) -> Iterator[Alert]:
    """What clients feel."""
    yield Alert(
        "GatewayDown", "page", 'absent(up{job="gateway"} == 1)', windows.wait(MINUTE),
        "The gateway does not answer: no client is served",
    )  # fmt: skip
    yield Alert(
        "ModelDown", "page", is_down(windows),
        windows.wait(4 * MINUTE),  # a worker that is told to stop takes three at most
        "No worker of {{ $labels.model }} answers",
    )  # fmt: skip
    yield Alert(
        "TimeToFirstTokenOverTarget", "ticket", f"slug:time_to_first_token_seconds:p95 > {targets.ttft_p95_s:g}",
        windows.wait(10 * MINUTE), "Answers of {{ $labels.slug }} begin after {{ $value | humanizeDuration }} (p95)",
    )  # fmt: skip
    yield Alert(
        "QueueGrows", "page",
        f"(slug:requests_waiting:sum > 10 and deriv(slug:requests_waiting:sum[{windows.range(5 * MINUTE)}]) > 0) "
        f"or on (model) (gateway_queue_age_seconds > {targets.queue_wait_s:g})",
        windows.wait(5 * MINUTE), "More requests come than {{ $labels.slug }}{{ $labels.model }} takes",
    )  # fmt: skip


def but_for_outages(windows: Windows, short: float) -> str:
    """Of a model that is down `ModelDown` tells, and nobody is woken twice: not before it fires, and not as long as its
    failures are within the short window."""
    told = f'max_over_time(ALERTS{{alertname="ModelDown",alertstate="firing"}}[{windows.range(short)}])'
    return f"unless on (model) ({is_down(windows)} or max by (model) ({told}))"


def budget_alerts(windows: Windows, targets: Targets) -> Iterator[Alert]:
    """Answers that failed, of those that were promised."""
    for name, severity, speed, long, short in BURNS:
        limit = round(speed * targets.budget, 6)
        ratios = [f"model:error_ratio:rate_{named(seconds)} > {limit:g}" for seconds in (long, short)]
        failures = f"model:error_ratio:rate_{named(long)} * model:requests:rate_{named(long)}"
        enough = f"{failures} * {round(long / windows.faster)} >= {targets.least_failures}"
        but_for = f" {but_for_outages(windows, short)}" if severity == "page" else ""
        yield Alert(
            name, severity, " and ".join([*ratios, enough]) + but_for, "0s",
            f"{{{{ $value | humanizePercentage }}}} of the requests for {{{{ $labels.model }}}} fail: {speed:g} times "
            "what the budget of a month allows",
        )  # fmt: skip
    window = windows.range(10 * MINUTE)
    broken = f'sum by (model) (increase(gateway_requests_total{{ending="broken"}}[{window}]))'
    every = f"sum by (model) (increase(gateway_requests_total[{window}]))"
    yield Alert(
        "AnswersBreakOff", "ticket", f"{broken} >= 5 and {broken} / {every} > {targets.broken:g}", "0s",
        "Answers of {{ $labels.model }} break off in the middle",
    )  # fmt: skip


def engine_alerts(windows: Windows, targets: Targets) -> Iterator[Alert]:
    """What a worker does to them."""
    still = windows.range(3 * MINUTE)
    marks = ("generation_tokens_total", "prompt_tokens_total", "kv_cache_usage_perc", "request_success_total")
    unchanged = " and ".join(
        f"sum by (slug, instance) (changes(vllm:{mark}[{still}])) == 0" for mark in marks
    )
    yield Alert(
        "EngineHangs", "page",
        f"(min by (slug, instance) (min_over_time(vllm:num_requests_running[{still}])) > 0 "
        f"and min by (slug, instance) (vllm:num_requests_running offset {still}) > 0 and {unchanged} "
        f"and sum by (slug, instance) (vllm:request_success_total) > 0) "
        f"or max by (slug, instance) (increase(launcher_hangs_total[{windows.range(10 * MINUTE)}])) > 0",
        windows.wait(MINUTE), "An engine of {{ $labels.slug }} has requests and does not move ({{ $labels.instance }})",
    )  # fmt: skip
    yield Alert(
        "WorkerCrashesAgain", "ticket", f"increase(launcher_crashes_total[{windows.range(HOUR)}]) >= 3", "0s",
        "vLLM of {{ $labels.slug }} ends by itself again and again ({{ $labels.instance }})",
    )  # fmt: skip
    yield Alert(
        "WorkerMisconfigured", "page", 'launcher_trouble{trouble="configuration"} == 1', windows.wait(MINUTE),
        "vLLM of {{ $labels.slug }} refuses its configuration; it waits for somebody to mend it",
    )  # fmt: skip


def start_alerts(windows: Windows, targets: Targets) -> Iterator[Alert]:
    """Workers that do not come to serve."""
    yield Alert(
        "WorkerWaits", "ticket", 'launcher_trouble{trouble=~"weights-missing|gpus-busy"} == 1',
        windows.wait(15 * MINUTE), "A worker of {{ $labels.slug }} waits: {{ $labels.trouble }}",
    )  # fmt: skip
    yield Alert(
        "ModelNotReady", "ticket",
        'max by (model) (gateway_model_state{state="loading"}) == 1 unless on () '
        'max(model_cache_phase{phase=~"downloading|verifying"}) == 1',
        windows.wait(HOUR), "{{ $labels.model }} has been loading for an hour, and no weights are being fetched",
    )  # fmt: skip
    yield Alert(
        "StartTakesTooLong", "ticket",
        f"sum by (slug, instance) (launcher_phase_seconds{STARTING}) > 2 * "
        f"sum by (slug, instance) (launcher_usual_phase_seconds{STARTING}) and on (slug, instance) "
        f"max by (slug, instance) (launcher_phase{STARTING}) == 1",
        windows.wait(5 * MINUTE), "{{ $labels.slug }} starts for longer than twice what its starts take",
    )  # fmt: skip


def load_alerts(windows: Windows, targets: Targets) -> Iterator[Alert]:
    """More than engines and gateway bear."""
    yield Alert(
        "KVCacheFull", "ticket", f"slug:kv_cache_usage:max > {targets.kv_use:g}", windows.wait(10 * MINUTE),
        "The KV cache of {{ $labels.slug }} is {{ $value | humanizePercentage }} full",
    )  # fmt: skip
    five = windows.range(5 * MINUTE)
    yield Alert(
        "Preemptions", "ticket",
        f"sum by (slug) (rate(vllm:num_preemptions_total[{five}])) > {targets.preemptions_per_s:g}",
        windows.wait(5 * MINUTE), "{{ $labels.slug }} begins {{ $value | humanize }} requests a second anew",
    )  # fmt: skip
    lag = f"sum by (le) (rate(gateway_loop_lag_seconds_bucket[{five}]))"
    yield Alert(
        "GatewaySaturated", "page", f"histogram_quantile(0.99, {lag}) > {targets.loop_lag_p99_s:g}",
        windows.wait(5 * MINUTE), "The gateway's event loop is {{ $value | humanizeDuration }} late (p99)",
    )  # fmt: skip


def weights_alerts(windows: Windows, targets: Targets) -> Iterator[Alert]:
    """Weights and disks."""
    yield Alert(
        "WeightsStalled", "ticket",
        f'model_cache_phase{{phase="downloading"}} == 1 and on (slug, repo) '
        f"changes(model_cache_bytes_done[{windows.range(2 * MINUTE)}]) == 0",
        windows.wait(10 * MINUTE), "Nothing of the weights of {{ $labels.slug }} has come for ten minutes",
    )  # fmt: skip
    run, day = "slug, repo, instance", windows.range(DAY)  # what a job said last is all there is of it
    began = f"last_over_time(model_cache_start_time_seconds[{day}])"
    yield Alert(
        "WeightsJobFailed", "ticket",
        f"max by ({run}) ({began}) == on (slug) group_left () max by (slug) ({began}) and on ({run}) "
        f'max by ({run}) (last_over_time(model_cache_phase{{phase="failed"}}[{day}])) == 1 '
        f'unless on (slug) max by (slug) (launcher_phase{{phase="ready"}}) == 1',
        "0s", "The weights of {{ $labels.slug }} could not be fetched: the last run gave up",
    )  # fmt: skip
    yield Alert(
        "WeightsCorrupt", "page", 'launcher_trouble{trouble="weights-corrupt"} == 1', "0s",
        "A file of the weights of {{ $labels.slug }} is not what was published: its worker does not start",
    )  # fmt: skip
    free, six = "launcher_disk_free_bytes", windows.range(6 * HOUR)
    share = f"min by (slug, disk) ({free} / launcher_disk_bytes)"
    yield Alert(
        "DiskFills", "ticket",
        f"{share} < {targets.disk_share:g} or ({share} < {targets.disk_spare:g} and min by (slug, disk) "
        f"(predict_linear({free}[{six}], {round(DAY / windows.faster)})) < 0 "
        f"and min by (slug, disk) ({free} offset {six}) > 0)",
        windows.wait(10 * MINUTE), "The disk of {{ $labels.disk }} ({{ $labels.slug }}) is full within a day",
    )  # fmt: skip


def gpu_alerts(windows: Windows, targets: Targets) -> Iterator[Alert]:
    """What DCGM's exporter says of the cards."""
    there = "count by (instance) (DCGM_FI_DEV_GPU_TEMP)"
    yield Alert(
        "GPULost", "page",
        f"{there} < max_over_time({there}[{windows.range(DAY)}:])",
        windows.wait(MINUTE), "A GPU of {{ $labels.instance }} is gone",
    )  # fmt: skip
    codes = " or ".join(f"DCGM_FI_DEV_XID_ERRORS == {code}" for code in XIDS)
    yield Alert(
        "GPUXid", "page", codes, "0s",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} reports XID {{ $value }}",
    )  # fmt: skip
    yield Alert(
        "GPURowRemapFailed", "page", "DCGM_FI_DEV_ROW_REMAP_FAILURE > 0", "0s",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} has memory that it could not set aside",
    )  # fmt: skip
    yield Alert(
        "GPUMemoryErrors", "ticket",
        f"increase(DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS[{windows.range(HOUR)}]) > 0", "0s",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} had an uncorrectable ECC error",
    )  # fmt: skip
    yield Alert(
        "GPUHot", "ticket",
        f"DCGM_FI_DEV_GPU_TEMP > {targets.gpu_celsius} or DCGM_FI_DEV_MEMORY_TEMP > {targets.gpu_memory_celsius}",
        windows.wait(5 * MINUTE), "GPU {{ $labels.gpu }} of {{ $labels.instance }} is at {{ $value }} °C",
    )  # fmt: skip


def rules(windows: Windows, targets: Targets) -> dict[str, Any]:
    """The whole file."""
    groups = (
        client_alerts,
        budget_alerts,
        engine_alerts,
        start_alerts,
        load_alerts,
        weights_alerts,
        gpu_alerts,
    )
    alerts = [
        {
            "name": make.__name__.removesuffix("_alerts"),
            "rules": [one.rule() for one in make(windows, targets)],
        }
        for make in groups
    ]
    return {"groups": [{"name": "recordings", "rules": list(recordings(windows))}, *alerts]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m observability.rules", description=__doc__)
    parser.add_argument("--faster", type=float, default=1, help="divide every window and wait by this")
    given = parser.parse_args()
    sys.stdout.write("# Made by `make rules` from observability/rules.py: change that.\n")
    yaml.safe_dump(
        rules(Windows(given.faster), Targets()), sys.stdout, sort_keys=False, width=110, allow_unicode=True
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
