"""For each alert a case in which it fires and one in which it stays silent, from which promtool's tests are made.

usage: python -m tests.contract.rule_cases EVERY     prints those with a sample each `1m` or `5m`; `promtool test rules`
runs them against rules.yaml
Series are in promtool's notation: `0+60x10` begins at 0 and grows ten times by 60.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).resolve().parents[2] / "observability/prometheus/rules.yaml"

REQUESTS = 'gateway_requests_total{model="m",status="%s",ending="%s"}'
FINE, FAILED, BROKEN = REQUESTS % (200, "complete"), REQUESTS % (502, "refused"), REQUESTS % (200, "broken")
TTFT = 'vllm:time_to_first_token_seconds_bucket{slug="s",le="%s"}'
LAG = 'gateway_loop_lag_seconds_bucket{le="%s"}'
WORKER, LAUNCHER = '{slug="s",instance="w:8000"}', '{slug="s",instance="w:8003"}'
WAITS = 'gateway_queue_age_seconds{model="m",priority="%s"}'
TROUBLE = 'launcher_trouble{slug="s",instance="w:8003",trouble="%s"}'
READY_WORKER = 'launcher_phase{slug="s",instance="w:8003",phase="ready"}'
DISK = '{slug="s",disk="weights",instance="w:8003"}'
JOB = '{slug="s",repo="o/n"}'
DOWN, LOADING, READY, ABSENT = (
    f'gateway_model_state{{model="m",state="{state}"}}' for state in ("down", "loading", "ready", "absent")
)
ELSEWHERE = 'gateway_model_state{model="m",state="ready",instance="new"}'
FETCHING = 'model_cache_phase{slug="s",repo="o/n",phase="downloading"}'
USED, LIMIT = (f'gateway_key_{name}{{key="k",limit="%s"}}' for name in ("limit_used", "limit"))
UP = 'up{job="gateway",instance="%s"}'
CARD = '{instance="n",gpu="%d"}'

Series = dict[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """An alert over two sets of series, looked at after `at`; a sample each `every`."""

    alert: str
    at: str
    fires: Series
    silent: Series
    every: str = "1m"


def burn(alert: str, at: str, too_much: str, little: str, points: int, every: str) -> Case:
    """Of 600 requests in each step so many fail."""
    fine = {FINE: f"0+600x{points}"}
    return Case(
        alert, at, fine | {FAILED: f"0+{too_much}x{points}"}, fine | {FAILED: f"0+{little}x{points}"}, every
    )


def outage(state: Series) -> tuple[Series, Series]:
    """All requests of ten minutes fail, without and with the gateway's word on where the model was."""
    failures = {FINE: "0+60x70 4200x10 4200+60x40", FAILED: "0x70 0+60x10 600x40"}
    return failures, failures | state


def hang(prompt_tokens: str) -> Series:
    """An engine with a request, whose numbers stand still but for these."""
    return {
        f"vllm:num_requests_running{WORKER}": "1x10",
        f"vllm:generation_tokens_total{WORKER}": "5x10",
        f"vllm:prompt_tokens_total{WORKER}": prompt_tokens,
        f"vllm:kv_cache_usage_perc{WORKER}": "0.1x10",
        f"vllm:request_success_total{WORKER}": "3x10",
    }


def of_key(requests: str, refused: str) -> Series:
    """What a key's clients sent, and how much of it no worker got."""
    names = {"requests": requests, "refused": refused}
    return {f'gateway_key_{name}_total{{key="k",model="m"}}': values for name, values in names.items()}


def budget(used: str) -> Series:
    """What a key has used of a thousand tokens a month."""
    return {USED % "monthly_tokens": used, LIMIT % "monthly_tokens": "1000x20"}


def histogram(name: str, bounds: dict[str, int]) -> Series:
    """So many observations up to each bound in each minute."""
    return {name % bound: f"0+{count}x30" for bound, count in bounds.items()}


def start(usual_s: int) -> Series:
    """A load that has lasted for as many minutes as the test."""
    labels = '{slug="s",instance="w:8003",phase="loading"}'
    return {
        f"launcher_phase{labels}": "1x30",
        f"launcher_phase_seconds{labels}": "0+60x30",
        f"launcher_usual_phase_seconds{labels}": f"{usual_s}x30",
    }


def download(done: str) -> Series:
    return {
        'model_cache_phase{slug="s",repo="o/n",phase="downloading"}': "1x30",
        f"model_cache_bytes_done{JOB}": done,
    }


def runs_of_job(repo: str, began: str, failed: str) -> Series:
    """A slug's weights jobs of one repository, and whether they have failed."""
    labels = f'slug="s",repo="{repo}",instance="s-weights:8002"'
    return {
        f"model_cache_start_time_seconds{{{labels}}}": began,
        f'model_cache_phase{{{labels},phase="failed"}}': failed,
    }


def disk(free: str) -> Series:
    return {f"launcher_disk_free_bytes{DISK}": free, f"launcher_disk_bytes{DISK}": "1000x600"}


def cards(second: str) -> Series:
    return {f"DCGM_FI_DEV_GPU_TEMP{CARD % 0}": "50x30", f"DCGM_FI_DEV_GPU_TEMP{CARD % 1}": second}


def one(series: str, fires: str, silent: str) -> tuple[Series, Series]:
    return {series: fires}, {series: silent}


CASES = (
    Case("GatewayDown", "5m", *one(UP % "g", "0x10", "1x10")),
    Case("GatewayDown", "5m", {UP % "g": "0x10"}, {UP % "g": "0x10", UP % "new": "1x10"}),  # one that was replaced
    Case("ModelDown", "6m", *one(DOWN, "1x10", "1x3 0x7")),
    # a gateway that was replaced is remembered
    Case("ModelDown", "6m", {DOWN: "1x10", READY: "0x10"}, {DOWN: "1x10", READY: "0x10", ELSEWHERE: "1x10"}),
    Case("ModelDown", "20m", {READY: "1x10 0x20", LOADING: "0x10 1x20"}, {READY: "0x30", LOADING: "1x30"}),
    Case("ModelDown", "30m", {READY: "1x10 0x30", ABSENT: "0x10 1 0x30", LOADING: "0x11 1x30"},
         {READY: "1x10 0x30", ABSENT: "0x10 1x5 0x30", LOADING: "0x15 1x30"}),  # stopped, and started again
    # one that keeps dying is not one that was stopped, and an hour of it is no recovery
    Case("ModelDown", "40m", {READY: "1x10 0x40", ABSENT: "0x10 1 0x5 1 0x5 1 0x27", LOADING: "0x11 1x5 0 1x5 0 1x27"},
         {READY: "1x10 0x40", ABSENT: "0x10 1x40", LOADING: "0x50"}),
    Case("ModelDown", "90m", {READY: "1x10 0x90", LOADING: "0x10 1x90"}, {READY: "0x100", LOADING: "1x100"}),
    burn("ErrorBudgetBurnsFast", "90m", "12", "6", 120, "1m"),
    # four of sixty requests: too few to say anything
    Case("ErrorBudgetBurnsFast", "59m", {FINE: "0+1x120", FAILED: "0+1x120"}, {FINE: "0+1x120", FAILED: "0x54 4x70"}),
    burn("ErrorBudgetBurns", "7h", "6", "3", 480, "1m"),
    burn("ErrorBudgetBurnsSlowly", "26h", "3", "1", 400, "5m"),
    burn("ErrorBudgetLeaks", "74h", "1", "0.3", 1000, "5m"),
    Case(
        "ErrorBudgetBurnsFast", "90m", {FINE: "0+600x120", BROKEN: "0+12x120"},
        # a model that is being loaded is refused, and nobody has failed
        {FINE: "0+600x120", REQUESTS % (503, "refused"): "0+60x120",
         'gateway_errors_total{model="m",code="model_loading"}': "0+60x120"},
    ),
    # ModelDown tells of an outage, while it lasts and as long as it is remembered
    Case("ErrorBudgetBurnsFast", "75m", *outage({DOWN: "0x70 1x10 0x40"})),
    Case("ErrorBudgetBurnsFast", "75m", *outage({READY: "1x70 0x10 1x40", LOADING: "0x70 1x10 0x40"})),
    Case("ErrorBudgetBurnsFast", "82m", *outage({DOWN: "0x70 1x10 0x40"})),
    Case("ErrorBudgetBurns", "100m", *outage({DOWN: "0x70 1x10 0x40"})),
    # one that was over too soon for that
    Case("ErrorBudgetBurnsFast", "75m", outage({DOWN: "0x70 1x3 0x40"})[1], outage({DOWN: "0x70 1x8 0x40"})[1]),
    Case("TimeToFirstTokenOverTarget", "25m", histogram(TTFT, {"10": 0, "30": 60, "+Inf": 60}),
         histogram(TTFT, {"10": 59, "30": 60, "+Inf": 60})),
    Case("AnswersBreakOff", "15m", {FINE: "0+50x20", BROKEN: "0+1x20"}, {FINE: "0+500x20", BROKEN: "0+1x20"}),
    Case("QueueGrows", "15m", *one('vllm:num_requests_waiting{slug="s",instance="w"}', "0+5x20", "50x20")),
    Case("QueueGrows", "10m", {WAITS % "normal": "12x20"}, {WAITS % "normal": "3x20", WAITS % "bulk": "60x20"}),
    Case("LimitsStoreDown", "5m", *one("gateway_limits_store_up", "0x10", "0 1x10")),
    Case("EngineHangs", "5m", hang("256x10"), hang("0+256x10")),  # a lone prefill moves
    Case("EngineHangs", "6m", hang("256x10"), {name: f"_x3 {values}" for name, values in hang("256x10").items()}),
    Case("EngineHangs", "8m", *one(f"launcher_hangs_total{LAUNCHER}", "0x4 1x10", "1x15")),
    Case("WorkerCrashesAgain", "30m", *one(f"launcher_crashes_total{LAUNCHER}", "0+1x10", "0x3 1x10"), every="5m"),
    Case("WorkerMisconfigured", "5m", *one(TROUBLE % "configuration", "1x5", "0x5")),
    Case("WorkerWaits", "20m", *one(TROUBLE % "gpus-busy", "1x30", "1x10 0x20")),
    Case("ModelNotReady", "70m", {LOADING: "1x90"}, {LOADING: "1x90", FETCHING: "1x90"}),
    Case("StartTakesTooLong", "20m", start(300), start(900)),
    Case("KVCacheFull", "15m", *one(f"vllm:kv_cache_usage_perc{WORKER}", "0.97x20", "0.97x8 0.5x12")),
    Case("Preemptions", "15m", *one(f"vllm:num_preemptions_total{WORKER}", "0+120x20", "0+30x20")),
    Case("KeyRefused", "40m", of_key("0+60x50", "0+40x50"), of_key("0+60x50", "0+20x50")),
    Case("KeyRefused", "40m", of_key("0+60x50", "0+60x50"), of_key("0+60x50", "0+60x12 720x38")),  # it was told
    Case("KeyBudgetNear", "15m", budget("850x20"), budget("750x20")),
    Case("KeyBudgetNear", "15m", budget("850x20"), budget("960x20")),  # the next one tells
    Case("KeyBudgetNearlyUsed", "15m", budget("960x20"), budget("940x20")),
    Case("KeyBudgetNearlyUsed", "15m", budget("960x20"), {USED % "tpm_in": "99x20", LIMIT % "tpm_in": "100x20"}),
    Case("GatewaySaturated", "15m", histogram(LAG, {"0.05": 0, "0.1": 60, "+Inf": 60}),
         histogram(LAG, {"0.05": 60, "0.1": 60, "+Inf": 60})),
    Case("AuditLogIncomplete", "15m", *one("gateway_audit_lines_dropped_total", "0x10 5x10", "5x20")),
    Case("WeightsStalled", "15m", download("5x30"), download("0+1000x30")),
    # the job is gone by then; another run makes good, or another way to have the weights
    Case("WeightsJobFailed", "30m", runs_of_job("o/n", "100x5", "0x4 1x0"), runs_of_job("o/n", "100x5", "0x5")),
    Case("WeightsJobFailed", "30m", runs_of_job("o/n", "100x5 _x5 900x5", "0x5 _x5 0x4 1x0"),
         runs_of_job("o/n", "100x5 _x5 900x5", "0x4 1x0 _x5 0x5")),
    Case("WeightsJobFailed", "30m",
         runs_of_job("o/m", "_x10 900x5", "_x10 0x4 1x0") | runs_of_job("o/n", "100x5", "0x5"),
         runs_of_job("o/m", "_x10 900x5", "_x10 0x5") | runs_of_job("o/n", "100x5", "0x4 1x0")),
    Case("WeightsJobFailed", "30m", runs_of_job("o/n", "100x5", "0x4 1x0") | {READY_WORKER: "0x30"},
         runs_of_job("o/n", "100x5", "0x4 1x0") | {READY_WORKER: "1x30"}),
    Case("WeightsCorrupt", "1m", *one(TROUBLE % "weights-corrupt", "1x5", "0x5")),
    Case("DiskFills", "8h", disk("600-1x600"), disk("900-1x600")),  # much is free: a download ends by itself
    Case("DiskFills", "1h", disk("49x600"), disk("180-1x600")),  # an hour is no trend
    Case("GPULost", "18m", cards("50x10 _x20"), cards("50x30")),
    Case("GPUXid", "1m", *one(f"DCGM_FI_DEV_XID_ERRORS{CARD % 0}", "79x5", "13x5")),  # 13: a program's own fault
    Case("GPURowRemapFailed", "1m", *one(f"DCGM_FI_DEV_ROW_REMAP_FAILURE{CARD % 0}", "1x5", "0x5")),
    Case("GPUMemoryErrors", "15m", *one(f"DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS{CARD % 0}", "0x3 1x20", "1x20")),
    Case("GPUHot", "10m", *one(f"DCGM_FI_DEV_GPU_TEMP{CARD % 0}", "90x20", "80x20")),
    Case("GPUHot", "10m", *one(f"DCGM_FI_DEV_MEMORY_TEMP{CARD % 0}", "97x20", "90x20")),
)  # fmt: skip


def promtool_test(case: Case, series: Series, *, fires: bool) -> dict[str, Any]:
    """How often the alert fires, which is once or not at all."""
    count = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    samples = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "interval": case.every,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": count, "eval_time": case.at, "exp_samples": samples}],
    }


def as_file(every: str) -> dict[str, Any]:
    """The whole file of the cases with samples so often, rules evaluated as often.

    promtool evaluates groups that have no given place in a random order, and alerts that read recordings would see
    those of this evaluation or of the one before.
    """
    found = [
        promtool_test(case, series, fires=fires)
        for case in CASES
        if case.every == every
        for series, fires in ((case.fires, True), (case.silent, False))
    ]
    groups = [group["name"] for group in yaml.safe_load(RULES.read_text())["groups"]]
    return {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": every,
        "group_eval_order": groups,
        "tests": found,
    }


def main(words: list[str]) -> int:
    sys.stdout.write("# Made by `make rule-tests` from tests/contract/rule_cases.py: change that.\n")
    yaml.safe_dump(as_file(words[0]), sys.stdout, sort_keys=False, width=110)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
