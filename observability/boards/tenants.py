"""Tenants: who uses what, who is refused, and who nears a limit."""

from observability.boards import panels, thresholds
from observability.boards.fleet import GATEWAY, MODEL
from observability.boards.panels import Board, Query, Row, Scale

CHOSEN = 'key=~"$key",model=~"$model"'


def used(metric: str, by: str = "key") -> str:
    """A rate by key, of the chosen keys and models."""
    return f"sum by ({by}) (rate(gateway_key_{metric}_total{{{CHOSEN}}}[$__rate_interval]))"


def in_time(metric: str, by: str) -> str:
    """The growth over the time that is looked at."""
    return f"sum by ({by}) (increase(gateway_key_{metric}_total{{{CHOSEN}}}[$__range]))"


NOW = Row(
    "Who is there?",
    [
        panels.numbers(
            "How many keys send requests?",
            "Keys with a request in the last five minutes. Metrics know the first 64 names of the key file; "
            "later ones are `other` together.",
            Scale(),
            Query("count(sum by (key) (rate(gateway_key_requests_total[5m])) > 0) or vector(0)", "keys"),
            width=panels.THIRD,
        ),
        panels.numbers(
            "Which share of all keys' requests is refused?",
            "Requests that no worker got. See below whose they are; `code` in the gateway's log says why.",
            Scale("percentunit", amber=0.05, red=0.5),
            Query(
                "sum(rate(gateway_key_refused_total[5m])) / (sum(rate(gateway_key_requests_total[5m])) > 0)",
                "refused",
            ),
            to=(GATEWAY,),
            width=panels.THIRD,
            none="no traffic",
        ),
        panels.numbers(
            "Which share of prompt tokens comes from a cache?",
            "Over the chosen keys. If it falls, prompts begin differently than before, or caches are too "
            "small: see Model, prefix cache.",
            panels.RATIO,
            Query(
                f"sum(rate(gateway_key_cached_tokens_total{{{CHOSEN}}}[5m])) "
                f"/ (sum(rate(gateway_key_prompt_tokens_total{{{CHOSEN}}}[5m])) > 0)",
                "cached",
            ),
            to=(MODEL,),
            width=panels.THIRD,
            none="no traffic",
        ),
        panels.lines(
            "Requests a second, by key",
            "Who is suddenly much above the usual may have a loop in a program: ask, or set a limit in the key file.",
            panels.REQUESTS,
            Query(used("requests"), "{{key}}"),
            to=(GATEWAY,),
            width=panels.HALF,
        ),
        panels.lines(
            "Requests refused a second, by key",
            "Requests that no worker got: over a limit, an unknown model, a full queue. The log has the reason.",
            panels.REQUESTS,
            Query(used("refused"), "{{key}}"),
            to=(GATEWAY,),
            width=panels.HALF,
        ),
    ],
)

TOKENS = Row(
    "What do they use?",
    [
        panels.lines(
            "Tokens of prompts, by key (tokens)",
            "A second. Long prompts keep others waiting: see Model, time to first token.",
            panels.TOKENS,
            Query(used("prompt_tokens"), "{{key}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Tokens of prompts from a cache, by key (tokens)",
            "A second. Whose share is low sends prompts that begin differently each time.",
            panels.TOKENS,
            Query(used("cached_tokens"), "{{key}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Tokens of completions, by key (tokens)",
            "A second. These take the most of an engine's time.",
            panels.TOKENS,
            Query(used("completion_tokens"), "{{key}}"),
            to=(MODEL,),
            stacked=True,
        ),
        panels.bars(
            "Tokens of completions in this time, by model (tokens)",
            "Of the chosen keys: the ten models with the most. For bills use `make usage`, which counts exactly.",
            Scale(),
            Query(f"topk(10, {in_time('completion_tokens', 'model')})", "{{model}}"),
            to=(MODEL,),
            width=panels.HALF,
        ),
        panels.bars(
            "Tokens of completions in this time, by key (tokens)",
            "The ten keys with the most. For bills use `make usage`, which counts exactly and knows all names.",
            Scale(),
            Query(f"topk(10, {in_time('completion_tokens', 'key')})", "{{key}}"),
            width=panels.HALF,
        ),
    ],
)

LIMITS = Row(
    "Who nears a limit?",
    [
        panels.bars(
            "How much of its limits has each key used?",
            "Tokens of a month: at 100 % the key's requests get 429 until the month ends. Limits of a minute and of "
            "requests at a time fill again by themselves. To give more, raise the limit in the key file.",
            Scale("percentunit", amber=thresholds.KEY_BUDGET, red=thresholds.KEY_BUDGET_RED, most=1),
            Query(
                'max by (key, limit) (gateway_key_limit_used{key=~"$key"} / gateway_key_limit{key=~"$key"})',
                "{{key}} {{limit}}",
            ),
            width=panels.HALF,
        ),
        panels.lines(
            "Requests refused by a limit a second, by key and limit",
            "The key asks for more than its limit gives. A client that does not wait as `Retry-After` says is refused "
            "again and again.",
            panels.REQUESTS,
            Query(
                'sum by (key, limit) (rate(gateway_key_limit_refusals_total{key=~"$key"}[$__rate_interval]))',
                "{{key}} {{limit}}",
            ),
            to=(GATEWAY,),
            width=panels.HALF,
        ),
    ],
)

TENANTS = Board(
    "octet-tenants",
    "Tenants",
    "Who uses what, who is refused, and who nears a limit. Empty without a key file.",
    (NOW, LIMITS, TOKENS),
    (
        panels.choice("key", "label_values(gateway_key_requests_total, key)"),
        panels.choice("model", "label_values(gateway_key_requests_total, model)"),
    ),
)
