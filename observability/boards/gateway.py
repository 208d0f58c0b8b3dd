"""Gateway: what it costs, what it refuses, what it does about workers that fail."""

from observability.boards import panels
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
    "What the gateway itself costs",
    [
        panels.numbers(
            "How many gateway processes answer?",
            "Fewer than GATEWAY_PROCESSES: one was lost and is being started again; its log says why.",
            Scale(),
            Query("gateway_processes", "processes"),
        ),
        panels.numbers(
            "Open files, of those it may open",
            "Every connection is one. Above 80 %: raise ulimits.nofile of the service gateway.",
            Scale("percentunit", amber=0.8, red=0.95),
            Query("gateway_process_open_fds / (gateway_process_max_fds * gateway_processes)", "open"),
        ),
        panels.numbers(
            "Requests a second now",
            "None for minutes, with clients that send: look at the network before the gateway.",
            panels.REQUESTS,
            Query("sum(rate(gateway_requests_total[1m]))", "requests"),
        ),
        panels.numbers(
            "CPU time a request (s)",
            "Streams cost by the chunk. A jump without longer streams: large bodies, or a client that sends "
            "what is refused.",
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
            "One at most. Near that: another process (GATEWAY_PROCESSES), on a core of its own.",
            Scale(amber=0.7, red=0.9),
            Query(f"{every('gateway_process_cpu_seconds_total')} / sum(gateway_processes)", "cores"),
        ),
        panels.lines(
            "How late is the event loop (s)?",
            "p99 above 50 ms: the gateway holds every stream back. Another process, or find what blocks it "
            "(a dump of a huge body).",
            Scale("s", amber=0.01, red=panels.TARGETS.loop_lag_p99_s),
            Query(lag(0.5), "p50"),
            Query(lag(0.99), "p99"),
        ),
        panels.lines(
            "Memory (bytes)",
            "Grows with open streams and large bodies and falls with them. Growing for hours at the same "
            "load is a leak: make report.",
            panels.BYTES,
            Query("gateway_process_resident_memory_bytes", "resident"),
        ),
    ],
)

WORKERS = Row(
    "What it does about workers that fail",
    [
        panels.lines(
            "Requests sent a second time (a second)",
            "Each saved a client from an error. Many: a worker dies or refuses again and again; Failed "
            "requests, beside this.",
            panels.PER_S,
            Query(every("gateway_retries_total"), "retries"),
        ),
        panels.lines(
            "Failed requests that count against a worker (a second)",
            "connect: nobody listens. reset and broken: it died. first_byte: it is late. unavailable: it "
            "said 503. Then its log.",
            panels.PER_S,
            Query(most(every("gateway_worker_failures_total", "slug, failure")), "{{slug}} {{failure}}"),
            to=(MODEL,),
            stacked=True,
        ),
        panels.lines(
            "Ejections and changes of workers' states (a second)",
            "A worker that comes and goes: its log, and the line worker_state in the gateway's, which has "
            "the reason.",
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
            "A few are people who close a page. Many at once: a client's own timeout is shorter than the "
            "model is slow.",
            panels.PER_S,
            Query(every("gateway_requests_total", "model", 'ending="client_gone"'), "{{model}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Answers that broke off (a second)",
            "A worker died or was cut off in the middle; its client got an error event. Above one in a "
            "hundred an alert fires.",
            Scale("ops", red=1),
            Query(every("gateway_requests_total", "model", 'ending="broken"'), "{{model}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Refused by a limit or a rule, by code (a second)",
            "overloaded: raise the queue or add a worker. request_too_large, invalid_request, "
            "invalid_api_key: the client's own.",
            panels.PER_S,
            Query(every("gateway_errors_total", "code", LIMITS), "{{code}}"),
            stacked=True,
        ),
        panels.lines(
            "How many requests stand in line, by model?",
            "The line has a length and a wait, set in the models file; beyond them clients get 429 or 503 "
            "with a time to come again.",
            Scale(),
            Query("gateway_queue_length", "{{model}}"),
            to=(MODEL,),
            width=panels.HALF,
        ),
        panels.lines(
            "How long has the first in line waited, by model (s)?",
            "Above ten seconds somebody is woken: more comes than the workers take.",
            Scale("s", red=panels.TARGETS.queue_wait_s),
            Query("gateway_queue_age_seconds", "{{model}}"),
            to=(MODEL,),
            width=panels.HALF,
        ),
    ],
)

GATEWAY = Board(
    "octet-gateway",
    "Octet / Gateway",
    "What the gateway costs, what it refuses, what it does about workers that fail.",
    [ITSELF, WORKERS, CLIENTS],
)
