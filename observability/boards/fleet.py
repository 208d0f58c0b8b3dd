"""Fleet: is anything wrong, for whom, since when; and where to look next."""

from observability.boards import panels, thresholds
from observability.boards.panels import AMBER, BLUE, GREEN, GREY, RED, Board, Query, Row, Scale

MODEL, GATEWAY, STARTS, GPUS = "octet-model", "octet-gateway", "octet-starts", "octet-gpus"
KNOWN = '{model!="unknown"}'  # what nobody declared has no budget
BUDGET = f"{thresholds.ERROR_BUDGET:g}"
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


def in_state(state: str) -> str:
    """Models of which the gateway says so."""
    return f'max by (model) (gateway_model_state{{state="{state}"}}) == 1'


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
            "If there are any, the table below says which and for whom; docs/operations.md has a row for "
            "each.",
            Scale(red=1),
            Query('count(ALERTS{alertstate="firing",severity="page"}) or vector(0)', "pages"),
        ),
        panels.numbers(
            "How many alerts can wait for the morning?",
            "The table below lists them as tickets; docs/operations.md has a row for each.",
            Scale(amber=1),
            Query('count(ALERTS{alertstate="firing",severity="ticket"}) or vector(0)', "tickets"),
        ),
        panels.numbers(
            "How many models are down?",
            "None of their workers answers, and clients get 503. `make status` gives the reason; then see"
            " `docker compose logs SLUG`.",
            Scale(red=1),
            Query(f"count({in_state('down')} unless on (model) {in_state('ready')}) or vector(0)", "models"),
            to=(MODEL, STARTS),
        ),
        panels.numbers(
            "Which share of requests fails, at worst, over 5 min?",
            "Of the model with the most failures that are not the client's fault. Above 0.1 %, open "
            "Model, Errors by cause.",
            Scale("percentunit", amber=thresholds.ERROR_BUDGET, red=thresholds.BROKEN),
            Query(f"max(model:error_ratio:rate_5m{KNOWN} >= 0)", "failed"),
            to=(MODEL,),
            none="no traffic",
        ),
        panels.rows(
            "What is wrong, for whom, for how long?",
            "The alerts that fire, each with its latest state. Find the row of that name in "
            "docs/operations.md: it says where to look and what to do. An empty table is good.",
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
            "If loading takes longer than usual, open Starts. If a model is down, the panel on the right "
            "shows which worker failed and since when.",
            MODEL_STATES,
            Query(coded("gateway_model_state", "model", MODEL_STATES), "{{model}}"),
            to=(STARTS,),
        ),
        panels.states(
            "In which state is each worker?",
            "suspect: it stood still or failed a probe. ejected: its requests failed. down: nothing "
            "answers. `make status` gives the reason, and docs/operations.md, Worker states in make "
            "status, says what to do.",
            WORKER_STATES,
            Query(coded("gateway_worker_state", "slug, worker", WORKER_STATES), "{{slug}} {{worker}}"),
            to=(MODEL, STARTS),
        ),
    ],
)

CLIENTS = Row(
    "What clients notice",
    [
        panels.lines(
            "Requests a second, by how they ended",
            "refused: the gateway or a worker refused it; broken: it failed after the first byte; "
            "client_gone: the client left. If refused or broken grow, open Model, Errors by cause.",
            panels.REQUESTS,
            Query("sum by (ending) (rate(gateway_requests_total[$__rate_interval]))", "{{ending}}"),
            to=(MODEL, GATEWAY),
            stacked=True,
        ),
        panels.lines(
            "How long until an answer begins, by model (p95, s)?",
            "Above the target, look at the requests that wait, below. If none wait, prompts are long or "
            "caches are cold: open Model.",
            Scale("s", red=thresholds.TTFT_P95_S),
            Query("model:time_to_first_byte_seconds:p95 >= 0", "{{model}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "How many requests wait, in engines and in the gateway?",
            "If it only grows, more requests arrive than the workers can take. Add a replica, or limit "
            "the queue so that the gateway refuses earlier.",
            Scale(),
            Query("slug:requests_waiting:sum", "{{slug}}"),
            Query("sum(gateway_queue_length)", "gateway"),
            to=(MODEL, GATEWAY),
        ),
        panels.lines(
            "Generated tokens a second, by slug",
            "If it falls while requests wait, look at KV cache and preemptions in Model, and at clocks "
            "and temperatures in GPUs.",
            panels.PER_S,
            Query("sum by (slug) (rate(vllm:generation_tokens_total[$__rate_interval]))", "{{slug}}"),
            to=(MODEL, GPUS),
        ),
        panels.lines(
            "How fast does the error budget burn (times the allowed pace)?",
            "At 1, a month's budget lasts a month. Above 14.4 over an hour an alert pages: open Model, "
            "Errors by cause.",
            Scale(amber=6, red=14.4),
            Query(f"model:error_ratio:rate_1h{KNOWN} / {BUDGET} >= 0", "{{model}}, 1 h"),
            Query(f"model:error_ratio:rate_6h{KNOWN} / {BUDGET} >= 0", "{{model}}, 6 h"),
            to=(MODEL,),
        ),
        panels.lines(
            "Which share of a month's error budget did the last 3 days take?",
            "A tenth is the even pace. Above 1 nothing is left for the month: postpone changes until it "
            "is below.",
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
