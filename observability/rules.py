"""Recording rules and alerts, from which observability/prometheus/rules.yaml is made.

usage: python -m observability.rules [--faster N]     prints the rules, every window and wait divided by N (default 1)
All durations are windows of `Windows`; what counts as too much is a figure of `Targets`.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml

RUNBOOK = "docs/operations.md"
Rule = dict[str, Any]
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
# double-bit ECC, row remapping (63, 64), NVLink, off the bus, contained and uncontained ECC
XIDS = (48, 63, 64, 74, 79, 94, 95)


def alert(severity: str, name: str, expr: str, says: str, wait: str = "0s") -> Rule:
    """As Prometheus reads it. `severity`: a `page` wakes somebody, a `ticket` waits for the morning. `says`: one line,
    with labels' values. `wait`: for how long `expr` must hold."""
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity},
        "annotations": {"summary": says, "runbook_url": f"{RUNBOOK}#{name.lower()}"},
    }


page, ticket = partial(alert, "page"), partial(alert, "ticket")


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


def recordings(windows: Windows) -> Iterator[Rule]:
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


def record(name: str, expr: str) -> Rule:
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


def client_alerts(windows: Windows, targets: Targets) -> Iterator[Rule]:
    """What clients feel."""
    yield page(
        "GatewayDown",
        'absent(up{job="gateway"} == 1)',
        "The gateway does not answer: no client is served",
        windows.wait(MINUTE),
    )
    yield page(
        "ModelDown",
        is_down(windows),
        "No worker of {{ $labels.model }} answers",
        windows.wait(4 * MINUTE),  # a worker that is told to stop takes three at most
    )
    yield ticket(
        "TimeToFirstTokenOverTarget",
        f"slug:time_to_first_token_seconds:p95 > {targets.ttft_p95_s:g}",
        "Answers of {{ $labels.slug }} begin after {{ $value | humanizeDuration }} (p95)",
        windows.wait(10 * MINUTE),
    )
    yield page(
        "QueueGrows",
        f"(slug:requests_waiting:sum > 10 and deriv(slug:requests_waiting:sum[{windows.range(5 * MINUTE)}]) > 0) "
        f"or on (model) (gateway_queue_age_seconds > {targets.queue_wait_s:g})",
        "{{ $labels.slug }}{{ $labels.model }} gets more requests than it can take",
        windows.wait(5 * MINUTE),
    )


def but_for_outages(windows: Windows, short: float) -> str:
    """Of a model that is down `ModelDown` tells, and nobody is woken twice: not before it fires, and not as long as its
    failures are within the short window."""
    told = f'max_over_time(ALERTS{{alertname="ModelDown",alertstate="firing"}}[{windows.range(short)}])'
    return f"unless on (model) ({is_down(windows)} or max by (model) ({told}))"


def budget_alerts(windows: Windows, targets: Targets) -> Iterator[Rule]:
    """Answers that failed, of those that were promised."""
    for name, severity, speed, long, short in BURNS:
        limit = round(speed * targets.budget, 6)
        ratios = [f"model:error_ratio:rate_{named(seconds)} > {limit:g}" for seconds in (long, short)]
        failures = f"model:error_ratio:rate_{named(long)} * model:requests:rate_{named(long)}"
        enough = f"{failures} * {round(long / windows.faster)} >= {targets.least_failures}"
        but_for = f" {but_for_outages(windows, short)}" if severity == "page" else ""
        yield alert(
            severity,
            name,
            " and ".join([*ratios, enough]) + but_for,
            f"{{{{ $value | humanizePercentage }}}} of the requests for {{{{ $labels.model }}}} fail: {speed:g} times "
            "what the budget of a month allows",
        )
    window = windows.range(10 * MINUTE)
    broken = f'sum by (model) (increase(gateway_requests_total{{ending="broken"}}[{window}]))'
    every = f"sum by (model) (increase(gateway_requests_total[{window}]))"
    yield ticket(
        "AnswersBreakOff",
        f"{broken} >= 5 and {broken} / {every} > {targets.broken:g}",
        "Answers of {{ $labels.model }} break off in the middle",
    )


def engine_alerts(windows: Windows, targets: Targets) -> Iterator[Rule]:
    """What a worker does to them."""
    still = windows.range(3 * MINUTE)
    marks = ("generation_tokens_total", "prompt_tokens_total", "kv_cache_usage_perc", "request_success_total")
    unchanged = " and ".join(
        f"sum by (slug, instance) (changes(vllm:{mark}[{still}])) == 0" for mark in marks
    )
    yield page(
        "EngineHangs",
        f"(min by (slug, instance) (min_over_time(vllm:num_requests_running[{still}])) > 0 "
        f"and min by (slug, instance) (vllm:num_requests_running offset {still}) > 0 and {unchanged} "
        f"and sum by (slug, instance) (vllm:request_success_total) > 0) "
        f"or max by (slug, instance) (increase(launcher_hangs_total[{windows.range(10 * MINUTE)}])) > 0",
        "An engine of {{ $labels.slug }} has requests and does not move ({{ $labels.instance }})",
        windows.wait(MINUTE),
    )
    yield ticket(
        "WorkerCrashesAgain",
        f"increase(launcher_crashes_total[{windows.range(HOUR)}]) >= 3",
        "vLLM of {{ $labels.slug }} ends by itself again and again ({{ $labels.instance }})",
    )
    yield page(
        "WorkerMisconfigured",
        'launcher_trouble{trouble="configuration"} == 1',
        "vLLM of {{ $labels.slug }} refuses its configuration and waits for a fix",
        windows.wait(MINUTE),
    )


def start_alerts(windows: Windows, targets: Targets) -> Iterator[Rule]:
    """Workers that do not come to serve."""
    yield ticket(
        "WorkerWaits",
        'launcher_trouble{trouble=~"weights-missing|gpus-busy"} == 1',
        "A worker of {{ $labels.slug }} waits: {{ $labels.trouble }}",
        windows.wait(15 * MINUTE),
    )
    yield ticket(
        "ModelNotReady",
        'max by (model) (gateway_model_state{state="loading"}) == 1 unless on () '
        'max(model_cache_phase{phase=~"downloading|verifying"}) == 1',
        "{{ $labels.model }} has been loading for an hour, and no weights are being fetched",
        windows.wait(HOUR),
    )
    yield ticket(
        "StartTakesTooLong",
        f"sum by (slug, instance) (launcher_phase_seconds{STARTING}) > 2 * "
        f"sum by (slug, instance) (launcher_usual_phase_seconds{STARTING}) and on (slug, instance) "
        f"max by (slug, instance) (launcher_phase{STARTING}) == 1",
        "{{ $labels.slug }} takes more than twice as long as usual to start",
        windows.wait(5 * MINUTE),
    )


def load_alerts(windows: Windows, targets: Targets) -> Iterator[Rule]:
    """More than engines and gateway bear."""
    yield ticket(
        "KVCacheFull",
        f"slug:kv_cache_usage:max > {targets.kv_use:g}",
        "The KV cache of {{ $labels.slug }} is {{ $value | humanizePercentage }} full",
        windows.wait(10 * MINUTE),
    )
    five = windows.range(5 * MINUTE)
    yield ticket(
        "Preemptions",
        f"sum by (slug) (rate(vllm:num_preemptions_total[{five}])) > {targets.preemptions_per_s:g}",
        "{{ $labels.slug }} preempts {{ $value | humanize }} requests a second",
        windows.wait(5 * MINUTE),
    )
    lag = f"sum by (le) (rate(gateway_loop_lag_seconds_bucket[{five}]))"
    yield page(
        "GatewaySaturated",
        f"histogram_quantile(0.99, {lag}) > {targets.loop_lag_p99_s:g}",
        "The gateway's event loop is {{ $value | humanizeDuration }} late (p99)",
        windows.wait(5 * MINUTE),
    )


def weights_alerts(windows: Windows, targets: Targets) -> Iterator[Rule]:
    """Weights and disks."""
    yield ticket(
        "WeightsStalled",
        f'model_cache_phase{{phase="downloading"}} == 1 and on (slug, repo) '
        f"changes(model_cache_bytes_done[{windows.range(2 * MINUTE)}]) == 0",
        "No weights of {{ $labels.slug }} have arrived for ten minutes",
        windows.wait(10 * MINUTE),
    )
    run, day = "slug, repo, instance", windows.range(DAY)  # what a job said last is all there is of it
    began = f"last_over_time(model_cache_start_time_seconds[{day}])"
    yield ticket(
        "WeightsJobFailed",
        f"max by ({run}) ({began}) == on (slug) group_left () max by (slug) ({began}) and on ({run}) "
        f'max by ({run}) (last_over_time(model_cache_phase{{phase="failed"}}[{day}])) == 1 '
        f'unless on (slug) max by (slug) (launcher_phase{{phase="ready"}}) == 1',
        "The weights of {{ $labels.slug }} could not be fetched: the last run gave up",
    )
    yield page(
        "WeightsCorrupt",
        'launcher_trouble{trouble="weights-corrupt"} == 1',
        "A file of the weights of {{ $labels.slug }} is not what was published: its worker does not start",
    )
    free, six = "launcher_disk_free_bytes", windows.range(6 * HOUR)
    share = f"min by (slug, disk) ({free} / launcher_disk_bytes)"
    yield ticket(
        "DiskFills",
        f"{share} < {targets.disk_share:g} or ({share} < {targets.disk_spare:g} and min by (slug, disk) "
        f"(predict_linear({free}[{six}], {round(DAY / windows.faster)})) < 0 "
        f"and min by (slug, disk) ({free} offset {six}) > 0)",
        "The disk of {{ $labels.disk }} ({{ $labels.slug }}) is full within a day",
        windows.wait(10 * MINUTE),
    )


def gpu_alerts(windows: Windows, targets: Targets) -> Iterator[Rule]:
    """What DCGM's exporter says of the cards."""
    there = "count by (instance) (DCGM_FI_DEV_GPU_TEMP)"
    yield page(
        "GPULost",
        f"{there} < max_over_time({there}[{windows.range(DAY)}:])",
        "A GPU of {{ $labels.instance }} is gone",
        windows.wait(MINUTE),
    )
    codes = " or ".join(f"DCGM_FI_DEV_XID_ERRORS == {code}" for code in XIDS)
    yield page("GPUXid", codes, "GPU {{ $labels.gpu }} of {{ $labels.instance }} reports XID {{ $value }}")
    yield page(
        "GPURowRemapFailed",
        "DCGM_FI_DEV_ROW_REMAP_FAILURE > 0",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} could not remap a faulty memory row",
    )
    yield ticket(
        "GPUMemoryErrors",
        f"increase(DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS[{windows.range(HOUR)}]) > 0",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} had an uncorrectable ECC error",
    )
    yield ticket(
        "GPUHot",
        f"DCGM_FI_DEV_GPU_TEMP > {targets.gpu_celsius} or DCGM_FI_DEV_MEMORY_TEMP > {targets.gpu_memory_celsius}",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} is at {{ $value }} °C",
        windows.wait(5 * MINUTE),
    )


def rules(windows: Windows, targets: Targets) -> dict[str, Any]:
    """The whole file."""
    alerts = {
        "client": client_alerts,
        "budget": budget_alerts,
        "engine": engine_alerts,
        "start": start_alerts,
        "load": load_alerts,
        "weights": weights_alerts,
        "gpu": gpu_alerts,
    }
    groups = {"recordings": recordings(windows)} | {
        name: make(windows, targets) for name, make in alerts.items()
    }
    return {"groups": [{"name": name, "rules": list(found)} for name, found in groups.items()]}


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
