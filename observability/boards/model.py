"""Model: what clients of a model get, and what its engines do to give it."""

from observability.boards import panels, thresholds
from observability.boards.fleet import GATEWAY, GPUS
from observability.boards.panels import Board, Query, Row, Scale

DRAFT = "vllm:spec_decode_num"
OURS, ITS = 'model=~"$model"', 'slug=~"$slug"'


def quantile(share: float, metric: str, by: str, only: str) -> str:
    """Of a histogram over all replicas: their buckets are added before anything is worked out."""
    return f"histogram_quantile({share:g}, sum by (le, {by}) (rate({metric}_bucket{{{only}}}[$__rate_interval])))"


def quantiles(metric: str, *shares: float) -> list[Query]:
    """Of one of vLLM's histograms, by slug."""
    return [Query(quantile(share, metric, "slug", ITS), f"{{{{slug}}}} p{share * 100:g}") for share in shares]


def rate(metric: str, by: str = "slug", only: str = ITS) -> str:
    return f"sum by ({by}) (rate({metric}{{{only}}}[$__rate_interval]))"


def ratio(part: str, whole: str) -> str:
    """Of two counters; nothing where the whole does not grow."""
    return f"{rate(part)} / ({rate(whole)} > 0)"


TRAFFIC = Row(
    "Requests and answers",
    [
        panels.lines(
            "Requests a second, by route and ending",
            "If anything but complete and client_gone is frequent, look at Errors by cause, beside this.",
            panels.REQUESTS,
            Query(rate("gateway_requests_total", "route, ending", OURS), "{{route}} {{ending}}"),
            stacked=True,
        ),
        panels.lines(
            "Errors a second, by cause",
            "The gateway's own error codes. docs/operations.md, Error codes clients see, has a row for each.",
            panels.PER_S,
            Query(rate("gateway_errors_total", "code", OURS), "{{code}}"),
            to=(GATEWAY,),
            stacked=True,
        ),
        panels.lines(
            "Answers a second, by status",
            "4xx: the client's error. 503: loading, down or overloaded. 502 and 504: a worker died or is "
            "too slow; read its log.",
            panels.REQUESTS,
            Query(rate("gateway_requests_total", "status", OURS), "{{status}}"),
        ),
        panels.lines(
            "Tokens a second, read and generated",
            "If much is read and little generated, long prompts delay the answers; prefix caching or "
            "another replica helps.",
            panels.TOKENS,
            Query(rate("vllm:prompt_tokens_total"), "{{slug}} read"),
            Query(rate("vllm:generation_tokens_total"), "{{slug}} generated"),
            to=(GPUS,),
        ),
        panels.lines(
            "Why did answers end (a second)?",
            "length, if frequent: clients set max_tokens too low, or the context is full. abort: clients "
            "left, or were cut off.",
            panels.PER_S,
            Query(
                rate("vllm:request_success_total", "slug, finished_reason"), "{{slug}} {{finished_reason}}"
            ),
            stacked=True,
        ),
        panels.lines(
            "How long are prompts and answers (p95, tokens)?",
            "A jump here explains a jump in time to first token and in KV use: clients send different "
            "prompts than before.",
            Scale(),
            *(
                Query(quantile(0.95, f"vllm:request_{what}_tokens", "slug", ITS), f"{{{{slug}}}} {what}")
                for what in ("prompt", "generation")
            ),
        ),
    ],
)

LATENCY = Row(
    "How long it takes",
    [
        panels.lines(
            "Time to first token, by slug (s)",
            "As vLLM measures it, from when it has the request. Above the target, Where does the time go,"
            " below, tells queue from prefill.",
            Scale("s", red=thresholds.TTFT_P95_S),
            *quantiles("vllm:time_to_first_token_seconds", 0.5, 0.95, 0.99),
        ),
        panels.lines(
            "Time to first byte at the gateway, by model (s)",
            "What clients notice. Far above vLLM's own time to first token, requests wait in the "
            "gateway's queue or were sent twice: open Gateway.",
            Scale("s", red=thresholds.TTFT_P95_S),
            *(
                Query(
                    quantile(share, "gateway_time_to_first_byte_seconds", "model", OURS),
                    f"{{{{model}}}} p{share * 100:g}",
                )
                for share in (0.5, 0.95, 0.99)
            ),
            to=(GATEWAY,),
        ),
        panels.lines(
            "Time between tokens, by slug (s)",
            "It grows with the number of concurrent requests and with long prefills in between. A lower "
            "max-num-seqs makes it shorter and the queue longer.",
            panels.SECONDS,
            *quantiles("vllm:inter_token_latency_seconds", 0.5, 0.99),
            to=(GPUS,),
        ),
        panels.lines(
            "Where does the time go (p95, s)?",
            "queue: too many requests for the replicas. prefill: prompts are long or the cache is cold. "
            "decode: answers are long. vLLM's smallest bucket is 0.3 s, so anything less appears as 0.29.",
            panels.SECONDS,
            *(
                Query(
                    quantile(0.95, f"vllm:request_{part}_time_seconds", "slug", ITS), f"{{{{slug}}}} {part}"
                )
                for part in ("queue", "prefill", "decode")
            ),
        ),
        panels.lines(
            "A whole answer, by slug (s)",
            "From the request to the last token. Compare it with the lengths of answers: long answers "
            "take long.",
            panels.SECONDS,
            *quantiles("vllm:e2e_request_latency_seconds", 0.5, 0.95, 0.99),
        ),
        panels.lines(
            "Time between chunks at the gateway, by model (s)",
            "The mean of each stream, as chunks come from the worker. Above vLLM's own value: the network"
            " is slow, or the gateway is too busy.",
            panels.SECONDS,
            *(
                Query(f"model:time_between_chunks_seconds:p{share}{{{OURS}}} >= 0", f"{{{{model}}}} p{share}")
                for share in (50, 99)
            ),
            to=(GATEWAY,),
        ),
    ],
)

ENGINE = Row(
    "Engines",
    [
        panels.lines(
            "Requests running and waiting, by slug",
            "If waiting grows, more requests arrive than the replicas can take. If running and tokens do "
            "not change, the engine hangs, and the launcher will restart it.",
            Scale(),
            Query(f"sum by (slug) (vllm:num_requests_running{{{ITS}}})", "{{slug}} running"),
            Query(f"sum by (slug) (vllm:num_requests_waiting{{{ITS}}})", "{{slug}} waiting"),
        ),
        panels.lines(
            "How full is the KV cache, by worker?",
            "Above 95 % vLLM delays or restarts requests. Lower max-num-seqs, use shorter contexts, or "
            "add a replica.",
            Scale("percentunit", amber=0.8, red=thresholds.KV_USE, most=1),
            Query(f"max by (slug, instance) (vllm:kv_cache_usage_perc{{{ITS}}})", "{{slug}} {{instance}}"),
        ),
        panels.lines(
            "Requests restarted because the KV cache was full (preemptions a second)",
            "Each one loses the work already done. Lower max-num-seqs or max-model-len in serve.yaml, or "
            "add a replica.",
            Scale("ops", red=thresholds.PREEMPTIONS_PER_S),
            Query(rate("vllm:num_preemptions_total"), "{{slug}}"),
        ),
        panels.lines(
            "Which share of prompt tokens was in the prefix cache?",
            "If it is low although conversations continue, use prefix_affinity for several replicas "
            "(docs/configuration.md, policies), or the cache is too small.",
            panels.RATIO,
            Query(ratio("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"), "{{slug}}"),
        ),
        panels.lines(
            "Which share of prompt tokens came from the host's memory?",
            "Only with <SLUG>_KV_OFFLOAD_GIB: tokens that the cards had forgotten and that were not computed again. "
            "Near zero although conversations continue, it brings nothing: give the memory back.",
            panels.RATIO,
            Query(
                ratio("vllm:external_prefix_cache_hits_total", "vllm:prefix_cache_queries_total"), "{{slug}}"
            ),
        ),
        panels.lines(
            "Which share of the draft's tokens was accepted?",
            "Only for slugs with a draft model. Below a third the draft costs more than it brings: remove"
            " speculative-config for this load.",
            panels.RATIO,
            Query(ratio(f"{DRAFT}_accepted_tokens_total", f"{DRAFT}_draft_tokens_total"), "{{slug}}"),
        ),
        panels.lines(
            "Requests now on each worker, as the gateway counts",
            "If replicas differ, the policy uses affinity, or a new worker is still growing to its full "
            "share.",
            Scale(),
            Query(f"gateway_requests_in_flight{{{ITS}}}", "{{slug}} {{worker}}"),
            to=(GATEWAY,),
        ),
    ],
)

MODEL = Board(
    "octet-model",
    "Octet / Model",
    "What clients of a model get, and how its engines are doing.",
    [TRAFFIC, LATENCY, ENGINE],
    [
        panels.choice("model", "label_values(gateway_model_state, model)"),
        panels.choice("slug", "label_values(gateway_worker_state, slug)"),
    ],
)
