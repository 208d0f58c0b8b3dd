"""Replicas of one model on a card each, asked through the gateway with every policy in turn: what shared prefixes gain.

usage: python -m bench.gpu.replicas --out FOLDER [--most 4] [--rounds 3] [--caches FOLDER]
Every run asks the same requests, at the same moments, of workers whose prefix caches are empty and of a gateway that
has just started. Time to first token is until a stream's first event. Requests come as from many clients that know
nothing of each other: where each waits for an answer before it asks again, the least loaded worker is the one that has
just ended a step, and the next request finds it at the beginning of another.
Exit codes: 0 measured · 1 a worker did not start, or an answer was not complete.
"""

import argparse
import asyncio
import datetime
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from bench.figures import quantile
from bench.gpu import checkpoint, front, recipe
from bench.gpu.loads import forget_prefixes
from bench.gpu.prove import gpus
from bench.gpu.rows import R1, Row
from bench.gpu.worker import Worker, started

POLICIES = ("least_in_flight", "prefix_affinity", "round_robin")
PORT, FRONT = 18200, 18300
READY_S, ANSWER_S = 300, 120
TOKENS = (
    8,
    56,
)  # of an answer, at least and at most: equally long ones would end, and the next begin, in waves
LOAD = (
    "requests come at random moments (exponential intervals), each at the moment that is its own in every run"
)
WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")


@dataclass(frozen=True, slots=True)
class Mix:
    """So many prompts, and how many beginnings they share. Lengths are in bytes.

    per_s: how many come in a second for each replica, about 60 % of what one takes.
    """

    key: str
    title: str
    prompts: int
    beginnings: int
    beginning_bytes: int
    rest_bytes: int
    per_s: float


MIXES = (
    Mix("turns", "60 conversations, 4 turns each", 240, 60, 6000, 300, 7),
    Mix("one", "one beginning for all", 240, 1, 6000, 300, 18),
    Mix("none", "nothing shared", 240, 240, 3000, 300, 7),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `cached`: the share of prompt tokens that workers had already."""

    replicas: int
    mix: str
    policy: str
    round: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    requests_per_s: float
    cached: float


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: when it is sent, in seconds since the first, its prompt, the tokens of its answer."""

    at_s: float
    prompt: str
    tokens: int


def requests(mix: Mix, replicas: int) -> list[Ask]:
    """Each beginning equally often, the same every time."""
    source = random.Random(mix.key)
    beginnings = [text(source, mix.beginning_bytes) for _ in range(mix.beginnings)]
    prompts = [beginnings[at % mix.beginnings] + text(source, mix.rest_bytes) for at in range(mix.prompts)]
    source.shuffle(prompts)
    moments = itertools.accumulate(source.expovariate(mix.per_s * replicas) for _ in prompts)
    return [Ask(at_s, prompt, source.randint(*TOKENS)) for at_s, prompt in zip(moments, prompts, strict=True)]


def text(source: random.Random, size: int) -> str:
    words = source.choices(WORDS, k=size // 4)
    return " ".join(words)[:size]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Workers, each on a card of its own."""

    slug: str
    workers: tuple[str, ...]
    folder: Path

    @property
    def model(self) -> str:
        return recipe.served_names(self.slug)[0]


@contextmanager
def running(row: Row, count: int, folder: Path, caches: Path) -> Iterator[Fleet]:
    """`count` replicas of the row, ready. What the first compiles, the others find. Raises TimeoutError."""
    place = folder / "files" / "replicas"
    checkpoint.write(place, row)
    (place / "serve.yaml").write_text(json.dumps(recipe.options(row)))
    with ExitStack() as stack:
        first = stack.enter_context(replica(row, 0, place, folder, caches))
        await_ready(first, 0)
        others = [stack.enter_context(replica(row, at, place, folder, caches)) for at in range(1, count)]
        for at, worker in enumerate(others, 1):
            await_ready(worker, at)
        yield Fleet(row.slug, tuple(f"http://127.0.0.1:{PORT + at}" for at in range(count)), folder)


@contextmanager
def replica(row: Row, at: int, place: Path, folder: Path, caches: Path) -> Iterator[Worker]:
    words = recipe.command(place, place / "serve.yaml", row.slug, PORT + at)
    own = {"CUDA_VISIBLE_DEVICES": str(at), "VLLM_SERVER_DEV_MODE": "1"}
    environment = recipe.environment(row, caches / row.slug) | own
    with started(words, environment, folder / f"replica-{at}.log", PORT + at) as worker:
        yield worker


def await_ready(worker: Worker, at: int) -> None:
    if (outcome := worker.wait_ready(READY_S)) != "ready":
        raise TimeoutError(f"replica {at}: {outcome}: {worker.lines[-3:]}")


def measure(fleet: Fleet, rounds: int) -> Iterator[Run]:
    """In every round two of them, then all; policies take turns at going first."""
    for number, count, mix in itertools.product(range(rounds), sizes(len(fleet.workers)), MIXES):
        part = replace(fleet, workers=fleet.workers[:count])
        for at in range(len(POLICIES)):
            policy = POLICIES[(at + number) % len(POLICIES)]
            yield once(part, mix, policy, number)


def sizes(most: int) -> list[int]:
    return sorted({min(2, most), most})


def once(fleet: Fleet, mix: Mix, policy: str, number: int) -> Run:
    """One run. Raises httpx.HTTPError where an answer is not complete."""
    for worker in fleet.workers:
        forget_prefixes(worker)
    before = cache_counts(fleet)
    with front.gateway(fleet.slug, fleet.workers, FRONT, fleet.folder, policy) as base:
        start = time.perf_counter()
        firsts = asyncio.run(ask_all(base, fleet.model, requests(mix, len(fleet.workers))))
        seconds = time.perf_counter() - start
    asked, found = (after - was for after, was in zip(cache_counts(fleet), before, strict=True))
    return Run(
        len(fleet.workers), mix.key, policy, number, quantile(firsts, 0.5) * 1e3, quantile(firsts, 0.99) * 1e3,
        mix.prompts / seconds, found / asked,
    )  # fmt: skip


def cache_counts(fleet: Fleet) -> tuple[float, float]:
    """Prompt tokens looked up in prefix caches, and found there, by all workers since they started."""
    pages = [httpx.get(f"{worker}/metrics", trust_env=False).text for worker in fleet.workers]
    lines = [line for page in pages for line in page.splitlines()]
    return total(lines, "vllm:prefix_cache_queries_total"), total(lines, "vllm:prefix_cache_hits_total")


def total(lines: Sequence[str], name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


async def ask_all(base: str, model: str, asked: Sequence[Ask]) -> list[float]:
    """Seconds until each answer's first event. Raises httpx.HTTPError."""
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=base, timeout=ANSWER_S, trust_env=False, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(ask(client, model, one)) for one in asked]
    return [task.result() for task in tasks]


async def ask(client: httpx.AsyncClient, model: str, one: Ask) -> float:
    body = {
        "model": model, "messages": [{"role": "user", "content": one.prompt}], "max_tokens": one.tokens,
        "ignore_eos": True, "stream": True,
    }  # fmt: skip
    await asyncio.sleep(one.at_s)
    start, first, last = time.perf_counter(), 0.0, ""
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            first = first or time.perf_counter() - start
            last = line or last
    if last != "data: [DONE]":
        raise httpx.RemoteProtocolError(f"a stream ended with {last[:200]!r}")
    return first


def medians(runs: Sequence[Mapping[str, Any]], replicas: int, mix: str, policy: str, figure: str) -> float:
    """Of one figure over the rounds of one policy."""
    wanted = (replicas, mix, policy)
    return float(
        statistics.median(
            run[figure] for run in runs if (run["replicas"], run["mix"], run["policy"]) == wanted
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.replicas", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--caches", type=Path, default=Path("/tmp/octet-caches"))  # a bare host's own
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    row = Row("replicas", R1, 1, "as shipped, a card each")
    record = heading()
    try:
        with running(row, given.most, given.out.resolve(), given.caches.resolve()) as fleet:
            for run in measure(fleet, given.rounds):
                record["runs"].append(asdict(run))
                (given.out / "replicas.json").write_text(json.dumps(record, indent=1) + "\n")
    except (TimeoutError, httpx.HTTPError, ExceptionGroup) as error:
        print(f"replicas: {error!r}", file=sys.stderr)
        return 1
    return 0


def heading() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    mixes = {mix.key: asdict(mix) for mix in MIXES}
    return {
        "date": now,
        "vllm": version("vllm"),
        "gpus": gpus(),
        "slug": R1,
        "load": LOAD,
        "mixes": mixes,
        "runs": [],
    }


if __name__ == "__main__":
    sys.exit(main())
