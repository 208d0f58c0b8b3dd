"""What a bulk key that saturates a worker costs an interactive one, and what it keeps itself.

usage: python -m bench.priorities HOST:PORT MODEL [--places 8] [--rounds 3] [--seconds 60]
HOST:PORT: a running vLLM with `scheduling-policy: priority` and as many `max-num-seqs` as places, such as a twin on
the CPU. A gateway of its own is started before it. Idle and saturated rounds take turns.
Exit codes: 0 measured, bars held · 1 a bar was missed · 2 the servers did not do their part.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from bench.figures import quantile, table

KEYS = {"chat": "interactive", "batch": "bulk"}
ASKERS = 4  # bulk requests at a time for each place
START_S = 60.0
ANSWER_TOKENS = {"chat": 16, "batch": 128}
TTFT_RATIO = 1.5
BULK_SHARE = 0.10


@dataclass(slots=True)
class Round:
    """Seconds of interactive requests to the first event, and between events; requests of each key that ended."""

    first: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))


@contextmanager
def gateway(worker: str, model: str, places: int) -> Iterator[tuple[str, Path]]:
    """Run a gateway with the two keys before the worker. Yields its address and its log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        card = folder / "docker" / "bench"
        card.mkdir(parents=True)
        (card / "card.yaml").write_text("slug: bench\n")
        (card / "model.env").write_text(f"WEIGHTS_REPO=o/bench\nSERVED_MODEL_NAMES={model}\n")
        (folder / "workers").write_text(f"bench http://{worker}\n")
        (folder / "keys").write_text(key_file())
        options = {"in_flight_per_worker": places, "queue": {"most": 10_000, "wait_s": 3600}}
        (folder / "models.yaml").write_text(json.dumps({"defaults": options}))
        settings = {
            "CARDS_DIR": card.parent, "WORKERS_FILE": folder / "workers", "API_KEYS_FILE": folder / "keys",
            "MODELS_FILE": folder / "models.yaml", "DNS": 0, "PORT": 0, "OPS_PORT": 0, "ALLOWED_HOSTS": "*",
        }  # fmt: skip
        own = {f"GATEWAY_{setting}": str(value) for setting, value in settings.items()}
        log = folder / "log"
        with log.open("w") as output:
            process = subprocess.Popen([sys.executable, "-m", "gateway"], env=os.environ | own, stdout=output)
        try:
            yield listening(log), log
        finally:
            process.terminate()
            process.wait()


def listening(log: Path) -> str:
    """Wait until the gateway's log says where it listens."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for event in events(log, "listening"):
            return str(event["data"])
        time.sleep(0.1)
    raise TimeoutError("the gateway does not start")


def events(log: Path, name: str) -> list[dict[str, Any]]:
    """The events of this name in the gateway's log so far."""
    whole = log.read_text().rpartition("\n")[0].splitlines()
    return [event for event in map(json.loads, whole) if event["event"] == name]


def key_file() -> str:
    """A key of each priority: `sk-` and its name."""
    digests = {name: sha256(f"sk-{name}".encode()).hexdigest() for name in KEYS}
    lines = [f"  {name}: {{sha256: [{digests[name]}], priority: {KEYS[name]}}}\n" for name in KEYS]
    return "".join(["keys:\n", *lines])


async def ask(client: httpx.AsyncClient, model: str, name: str, found: Round, number: int) -> None:
    """One streamed answer of a fixed length to a prompt that no cache has."""
    body = {
        "model": model, "stream": True, "max_tokens": ANSWER_TOKENS[name], "ignore_eos": True, "temperature": 1,
        "messages": [{"role": "user", "content": f"{number} {time.time_ns()}"}],
    }  # fmt: skip
    begun = last = time.perf_counter()
    events = 0
    async with client.stream(
        "POST", "/v1/chat/completions", json=body, headers={"authorization": f"Bearer sk-{name}"}
    ) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            now = time.perf_counter()
            if name == "chat":
                (found.steps if events else found.first).append(now - (last if events else begun))
            events, last = events + 1, now
    found.ended[name] += 1


async def repeat(client: httpx.AsyncClient, model: str, name: str, found: Round, until: float) -> None:
    number = 0
    while time.perf_counter() < until:
        number += 1
        await ask(client, model, name, found, number)


async def play(address: str, model: str, seconds: float, askers: dict[str, int]) -> Round:
    """Ask with so many requests of each key at a time. The interactive key's are measured one by one."""
    found = Round()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=None, limits=limits) as client:
        until = time.perf_counter() + seconds
        tasks = [
            asyncio.create_task(repeat(client, model, name, found, until))
            for name, most in askers.items()
            for _ in range(most)
        ]
        await asyncio.wait(tasks, timeout=seconds + 2, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


def measure(address: str, model: str, places: int, rounds: int, seconds: float, log: Path) -> bool:
    """Print the figures of all rounds; return whether the bars were held."""
    idle, busy, crowd = Round(), Round(), Round()
    asyncio.run(play(address, model, 5, {"chat": 1}))  # what is compiled at first use
    waited = 0
    for _ in range(rounds):
        for found, askers in (
            (idle, {"chat": 1}),
            (busy, {"chat": 1, "batch": ASKERS * places}),
            (crowd, {"chat": ASKERS * places, "batch": ASKERS * places}),
        ):
            before = len(events(log, "request"))
            one = asyncio.run(play(address, model, seconds, askers))
            if found is busy:
                lines = events(log, "request")[before:]
                waited += sum(line["key"] == "chat" and line["queue_ms"] > 0 for line in lines)
            found.first += one.first
            found.steps += one.steps
            for name, count in one.ended.items():
                found.ended[name] += count
    step = quantile(busy.steps, 0.5)
    most = TTFT_RATIO * quantile(idle.first, 0.95) + step
    tokens = {name: count * ANSWER_TOKENS[name] for name, count in crowd.ended.items()}
    share = tokens["batch"] / max(1, sum(tokens.values()))
    rows = [
        [what, str(len(one.first)), *(f"{1000 * quantile(one.first, share):.0f}" for share in (0.5, 0.95)),
         f"{1000 * quantile(one.steps, 0.5):.0f}", str(one.ended["chat"]), str(one.ended["batch"])]
        for what, one in (("idle", idle), ("a bulk key saturates it", busy), ("both saturate it", crowd))
    ]  # fmt: skip
    header = ["worker", "requests", "TTFT p50 ms", "p95 ms", "step p50 ms", "interactive ended", "bulk ended"]
    print(table(header, rows))
    print(f"TTFT p95 under bulk: {1000 * quantile(busy.first, 0.95):.0f} ms, bar {1000 * most:.0f} ms")
    print(f"interactive requests that waited in the gateway then: {waited}")
    print(f"bulk's part of the tokens where both saturate it: {share:.1%}, bar {BULK_SHARE:.0%}")
    return quantile(busy.first, 0.95) <= most and share >= BULK_SHARE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worker")
    parser.add_argument("model")
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    with gateway(given.worker, given.model, given.places) as (address, log):
        deadline = time.monotonic() + START_S
        headers = {"authorization": "Bearer sk-chat"}
        while httpx.get(f"http://{address}/ready", headers=headers).status_code != 200:
            if time.monotonic() > deadline:
                sys.stderr.write("the worker does not become ready\n")
                return 2
            time.sleep(0.2)
        return 0 if measure(address, given.model, given.places, given.rounds, given.seconds, log) else 1


if __name__ == "__main__":
    sys.exit(main())
