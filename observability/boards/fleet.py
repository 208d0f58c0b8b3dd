"""Fleet: is anything wrong, for whom, since when; and where to look next."""

from observability.boards import panels
from observability.boards.panels import AMBER, BLUE, GREEN, GREY, RED, Board, Query, Row, Scale
from observability.rules import in_state

MODEL, GATEWAY, STARTS, GPUS = "octet-model", "octet-gateway", "octet-starts", "octet-gpus"
KNOWN = '{model!="unknown"}'  # what nobody declared has no budget
BUDGET = f"{panels.TARGETS.budget:g}"
MODEL_STATES = {0: ("absent", GREY), 1: ("down", RED), 2: ("loading", BLUE), 3: ("ready", GREEN)}
WORKER_STATES = {
    1: ("ready", GREEN),
    2: ("starting", BLUE),
    3: ("half_open", AMBER),
    4: ("suspect", AMBER),
    5: ("ejected", AMBER),
    6: ("misnamed", RED),
    7: ("down", RED),
}  # where gateway processes differ, the worst is shown


def coded(
    metric: str, by: str, names: dict[int, tuple[str, str]], label: str = "state", only: str = ""
) -> str:
    """One number for each series: the last of the values of `label` that is 1. `only`: of these series, a matcher."""
    also = only and "," + only
    parts = (f'{metric}{{{label}="{word}"{also}}} * {value}' for value, (word, _) in names.items())
    return f"max by ({by}) ({' or '.join(parts)})"


WRONG = Row(
    "Is anything wrong?",
    [
        panels.numbers(
            "How many alerts wake somebody now?",
            "More than none: the table below says which and for whom; each has a row in docs/operations.md.",
            Scale(red=1),
            Query('count(ALERTS{alertstate="firing",severity="page"}) or vector(0)', "pages"),
        ),
        panels.numbers(
            "How many alerts can wait for the morning?",
            "The table below has them, as tickets; each has a row in docs/operations.md.",
            Scale(amber=1),
            Query('count(ALERTS{alertstate="firing",severity="ticket"}) or vector(0)', "tickets"),
        ),
        panels.numbers(
            "How many models are down?",
            "None of their workers answers, and clients get 503. `make status` says why; then `docker "
            "compose logs SLUG`.",
            Scale(red=1),
            Query(f"count({in_state('down')} unless on (model) {in_state('ready')}) or vector(0)", "models"),
            to=(MODEL, STARTS),
        ),
        panels.numbers(
            "Which share of requests fails, at worst, over 5 min?",
            "Of the model that fares worst, by our fault. Above 0.1 %: open Model, Errors by cause.",
            Scale("percentunit", amber=panels.TARGETS.budget, red=panels.TARGETS.broken),
            Query(f"max(model:error_ratio:rate_5m{KNOWN} >= 0)", "failed"),
            to=(MODEL,),
            none="no traffic",
        ),
        panels.rows(
            "What is wrong, for whom, for how long?",
            "Alerts that fire, the latest state of each. Take the row of that name in docs/operations.md: "
            "it says what to look at and what to do. Empty is good.",
            panels.SECONDS,
            ["alertname", "severity", "model", "slug", "instance", "gpu"],
            Query('time() - (ALERTS_FOR_STATE and ignoring (alertstate) ALERTS{alertstate="firing"})', "for"),
            to=(MODEL, GATEWAY, STARTS, GPUS),
        ),
    ],
)

MODELS = Row(
    "Models and workers",
    [
        panels.states(
            "In which state is each model?",
            "Loading for longer than usual: open Starts. Down: its workers, to the right, say which of them "
            "and since when.",
            MODEL_STATES,
            Query(coded("gateway_model_state", "model", MODEL_STATES), "{{model}}"),
            to=(STARTS,),
        ),
        panels.states(
            "In which state is each worker?",
            "Suspect: it stood still or failed a probe. Ejected: its requests failed. Down: nothing "
            "answers. The reason is in `make status`, and what to do in docs/operations.md, What make "
            "status says of a worker.",
            WORKER_STATES,
            Query(coded("gateway_worker_state", "slug, worker", WORKER_STATES), "{{slug}} {{worker}}"),
            to=(MODEL, STARTS),
        ),
    ],
)

CLIENTS = Row(
    "What clients feel",
    [
        panels.lines(
            "Requests a second, by how they ended",
            "refused: the gateway or a worker said no; broken: it failed after the first byte; client_gone: "
            "the client left. Refused or broken that grow: open Model, Errors by cause.",
            panels.REQUESTS,
            Query("sum by (ending) (rate(gateway_requests_total[$__rate_interval]))", "{{ending}}"),
            to=(MODEL, GATEWAY),
            stacked=True,
        ),
        panels.lines(
            "How long until an answer begins, by model (p95, s)?",
            "Above the target: look at requests that wait, below. If none wait, prompts are long or caches "
            "cold: open Model.",
            Scale("s", red=panels.TARGETS.ttft_p95_s),
            Query("model:time_to_first_byte_seconds:p95 >= 0", "{{model}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "How many requests wait, in engines and in the gateway?",
            "A line that only grows: more comes than the workers take. Add a replica, or let the gateway "
            "refuse earlier.",
            Scale(),
            Query("slug:requests_waiting:sum", "{{slug}}"),
            Query("sum(gateway_queue_length)", "gateway"),
            to=(MODEL, GATEWAY),
        ),
        panels.lines(
            "Generated tokens a second, by slug",
            "What the GPUs make. Falling while requests wait: look at KV cache and preemptions in Model, "
            "clocks and heat in GPUs.",
            panels.PER_S,
            Query("sum by (slug) (rate(vllm:generation_tokens_total[$__rate_interval]))", "{{slug}}"),
            to=(MODEL, GPUS),
        ),
        panels.lines(
            "How fast does the error budget burn (times the allowed pace)?",
            "1 uses a month's budget in a month. Above 14.4 over an hour somebody is woken: open Model, "
            "Errors by cause.",
            Scale(amber=6, red=14.4),
            Query(f"model:error_ratio:rate_1h{KNOWN} / {BUDGET} >= 0", "{{model}}, 1 h"),
            Query(f"model:error_ratio:rate_6h{KNOWN} / {BUDGET} >= 0", "{{model}}, 6 h"),
            to=(MODEL,),
        ),
        panels.lines(
            "Which share of a month's error budget did the last 3 days take?",
            "A tenth is the even pace. Above 1 nothing is left for the month: changes wait until it is "
            "below.",
            Scale("percentunit", amber=0.1, red=1),
            Query(f"model:error_ratio:rate_3d{KNOWN} / {BUDGET} * 3 / 30 >= 0", "{{model}}"),
            to=(MODEL,),
        ),
    ],
)

FLEET = Board(
    "octet-fleet",
    "Octet / Fleet",
    "Is anything wrong, for whom, since when. The first page to open.",
    [WRONG, MODELS, CLIENTS],
)
