"""Gateway: what it costs, what it refuses, what it does about workers that fail."""

from observability.boards import panels, thresholds
from observability.boards.fleet import MODEL
from observability.boards.model import rate
from observability.boards.panels import Board, Query, Row, Scale


def every(metric: str, by: str = "", only: str = "") -> str:
    """A rate over all of the gateway."""
    return rate(metric, by, only) if by else f"sum(rate({metric}{{{only}}}[$__rate_interval]))"


LIMITS = 'code=~"overloaded|rate_limited|request_too_large|invalid_.*|model_not_found"'


def most(expression: str) -> str:
    """The largest few, of what every slug has."""
    return f"topk(6, {expression})"


def lag(share: float) -> str:
    return f"histogram_quantile({share:g}, sum by (le) (rate(gateway_loop_lag_seconds_bucket[$__rate_interval])))"


ITSELF = Row(
    "The gateway itself",
    [
        panels.numbers(
            "How many gateway processes answer?",
            "Fewer than GATEWAY_PROCESSES means that one was lost and is being restarted; its log gives "
            "the reason.",
            Scale(),
            Query("gateway_processes", "processes"),
        ),
        panels.numbers(
            "Open files, as a share of the limit",
            "Every connection is one open file. Above 80 %, raise ulimits.nofile of the service gateway.",
            Scale("percentunit", amber=0.8, red=0.95),
            Query("gateway_process_open_fds / (gateway_process_max_fds * gateway_processes)", "open"),
        ),
        panels.numbers(
            "Requests a second now",
            "If it stays at none for minutes while clients send requests, look at the network before the "
            "gateway.",
            panels.REQUESTS,
            Query("sum(rate(gateway_requests_total[1m]))", "requests"),
        ),
        panels.numbers(
            "CPU time a request (s)",
            "Streams cost CPU time for each chunk. A jump without longer streams means large bodies, or a"
            " client whose requests are refused.",
            panels.SECONDS,
            Query(
                "sum(rate(gateway_process_cpu_seconds_total[5m])) / (sum(rate(gateway_requests_total[5m])) "
                "> 0)",
                "CPU",
            ),
            none="no traffic",
        ),
        panels.lines(
            "Cores that each gateway process uses",
            "A process can use at most one core. Near one, start another process (GATEWAY_PROCESSES) if "
            "the host has a free core.",
            Scale(amber=0.7, red=0.9),
            Query(f"{every('gateway_process_cpu_seconds_total')} / sum(gateway_processes)", "cores"),
        ),
        panels.lines(
            "How late is the event loop (s)?",
            "With p99 above 50 ms the gateway delays every stream. Start another process, or find what "
            "blocks the loop (such as parsing a huge body).",
            Scale("s", amber=0.01, red=thresholds.LOOP_LAG_P99_S),
            Query(lag(0.5), "p50"),
            Query(lag(0.99), "p99"),
        ),
        panels.lines(
            "Memory (bytes)",
            "It rises and falls with open streams and large bodies. If it grows for hours at the same "
            "load, there is a leak: run make report.",
            panels.BYTES,
            Query("gateway_process_resident_memory_bytes", "resident"),
        ),
    ],
)

WORKERS = Row(
    "Workers that fail",
    [
        panels.lines(
            "Requests sent a second time (a second)",
            "Each one saved a client from an error. Many mean that a worker keeps dying or refusing: see "
            "Failed requests, beside this.",
            panels.PER_S,
            Query(every("gateway_retries_total"), "retries"),
        ),
        panels.lines(
            "Failed requests that count against a worker (a second)",
            "connect: nothing listens. reset, broken: the worker died. first_byte: it is too slow. "
            "unavailable: it answered 502, 503 or 504. Read its log.",
            panels.PER_S,
            Query(most(every("gateway_worker_failures_total", "slug, failure")), "{{slug}} {{failure}}"),
            to=(MODEL,),
            stacked=True,
        ),
        panels.lines(
            "Ejections and changes of workers' states (a second)",
            "If a worker comes and goes, read its log, and the line worker_state in the gateway's log, "
            "which gives the reason.",
            panels.PER_S,
            Query(most(every("gateway_worker_ejections_total", "slug")), "{{slug}} ejected"),
            Query(most(every("gateway_worker_transitions_total", "slug, to")), "{{slug}} to {{to}}"),
            to=(MODEL,),
        ),
    ],
)

CLIENTS = Row(
    "Clients, and limits",
    [
        panels.lines(
            "Clients that left before the end (a second)",
            "A few are people who close a page. Many at once: clients have a timeout that is shorter than"
            " the model's answers take.",
            panels.PER_S,
            Query(every("gateway_requests_total", "model", 'ending="client_gone"'), "{{model}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Answers that broke off (a second)",
            "A worker died or was cut off in the middle of an answer, and the client got an error event. "
            "Above one in a hundred an alert fires.",
            Scale("ops", red=1),
            Query(every("gateway_requests_total", "model", 'ending="broken"'), "{{model}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Refused by a limit or a rule, by code (a second)",
            "overloaded: lengthen the queue or add a worker. request_too_large, invalid_request, "
            "invalid_api_key: the client must change its request.",
            panels.PER_S,
            Query(every("gateway_errors_total", "code", LIMITS), "{{code}}"),
            stacked=True,
        ),
        panels.lines(
            "How many requests wait in the queue, by model and priority?",
            "The models file sets the queue's length and longest wait. Beyond them clients get 429 or 503"
            " with Retry-After.",
            Scale(),
            Query("gateway_queue_length > 0", "{{model}} {{priority}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "How long has the first request in the queue waited, by model and priority (s)?",
            "Above ten seconds an alert pages, but for bulk: more requests arrive than the workers can take.",
            Scale("s", red=thresholds.QUEUE_WAIT_S),
            Query("gateway_queue_age_seconds > 0", "{{model}} {{priority}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Request bodies in memory, and their limit (bytes)",
            "Near the limit, large uploads get 503 overloaded while small ones still pass. If it stays there: raise "
            "GATEWAY_BODIES_BYTES, and mem_limit along with it.",
            panels.BYTES,
            Query("gateway_bodies_bytes", "in memory"),
            Query("gateway_bodies_limit_bytes", "limit"),
        ),
    ],
)

GATEWAY = Board(
    "octet-gateway",
    "Octet / Gateway",
    "What the gateway costs, which requests it refuses, and what it does about failing workers.",
    [ITSELF, WORKERS, CLIENTS],
)
