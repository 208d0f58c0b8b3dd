"""Ten keys with limits and 200 clients that want more: what each key got, and whether its bill is right.

usage: python -m bench.limits WORKER_URL MODEL [--seconds 598] [--clients 20] [--processes 2] [--json FILE]
WORKER_URL: a running vLLM that serves MODEL. The gateway is started here, with a key file, a record of usage, and as
many processes as told. Each key has 20 clients, which send the next request as soon as they may: after a 429 they wait
as long as the answer says. One stream in ten is given up at its first bytes. What was used is read from the gateway's
log (a request counts from the moment it came), the bill from its record. A bill is right if it is the sum of what whole
answers told and of what the log has of the streams given up. As a second witness, the worker's own counters are shown.
Exit codes: 0 each bar holds · 1 one is missed · 3 an answer was wrong, or a server broke.
"""

import argparse
import asyncio
import itertools
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

import httpx
import yaml

from bench.processes import end, python_module
from bench.servers import BrokenServer, free_port, wait_until, write_card
from gateway.config.api_keys import hash_key, new_key
from gateway.usage.store import FILE

MINUTE_S = 60.0
START_S = 60
JITTER_S = 0.1  # at most between a request's coming, by its log line, and its being counted
LIMITS: dict[str, dict[str, int]] = {
    "requests-60": {"rpm": 60},
    "requests-120": {"rpm": 120},
    "answers-600": {"tpm_out": 600},
    "answers-1200": {"tpm_out": 1200},
    "prompts-2000": {"tpm_in": 2000},
    "prompts-4000": {"tpm_in": 4000},
    "two-at-once": {"concurrency": 2},
    "four-at-once": {"concurrency": 4},
    "both": {"rpm": 90, "tpm_out": 800},
    "month": {"monthly_tokens": 6000},
}
MOST_OVER, LEAST_UNDER = 1.01, 0.99
LENGTHS = (4, 16)  # tokens of an answer
LONG = (48, 96)  # of one that is given up, or is long so that many run at once
GIVE_UP_EVERY = 10  # streams
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "boil",
    "jugs",
    "of",
    "quartz",
]


@dataclass(slots=True)
class Told:
    """What the clients of one key were told. Tokens are those of whole answers alone."""

    answers: int = 0
    given_up: set[str] = field(default_factory=set)  # their requests' ids
    refused: Counter[str] = field(default_factory=Counter)
    prompt: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One request of the gateway's log that a worker answered; `begun` in seconds since the epoch."""

    id: str
    key: str
    begun: float
    ended: float
    prompt: int
    completion: int


class Client:
    """One client of one key: request after request until told to stop. Every answer must be whole, or a 429."""

    def __init__(
        self, session: httpx.AsyncClient, model: str, key: str, told: Told, seed: int, *, is_long: bool
    ) -> None:
        self._session = session
        self._model = model
        self._headers = {"authorization": f"Bearer {key}"}
        self._told = told
        self._is_long = is_long
        self._random = random.Random(seed)
        self._numbers = itertools.count(seed)

    async def run(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            pause = await self._ask()
            await asyncio.sleep(min(pause, left))

    async def _ask(self) -> float:
        """Send one request; return how long to wait before the next. Raises BrokenServer for a wrong answer."""
        number = next(self._numbers)
        text = " ".join(self._random.choices(WORDS, k=self._random.randint(8, 24)))
        stream = bool(number % 2)
        gives_up = number % (2 * GIVE_UP_EVERY) == 1
        lengths = LONG if self._is_long or gives_up else LENGTHS
        body: dict[str, object] = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self._random.randint(*lengths),
            "ignore_eos": True,
            "temperature": 0,
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        call = self._session.stream("POST", "/v1/chat/completions", json=body, headers=self._headers)
        async with call as answer:
            if answer.status_code == 429:
                await answer.aread()
                return self._note_refusal(answer)
            if answer.status_code != 200:
                raise BrokenServer(f"{answer.status_code}: {(await answer.aread()).decode()[:300]}")
            if gives_up:
                async for _ in answer.aiter_raw():
                    break
                self._told.given_up.add(answer.headers["x-request-id"])
                return 0.0
            usage = await (streamed(answer) if stream else document(answer))
        self._told.answers += 1
        self._told.prompt += usage["prompt_tokens"]
        self._told.completion += usage["completion_tokens"]
        return 0.0

    def _note_refusal(self, answer: httpx.Response) -> float:
        """Return the seconds that the answer asks to wait. Raises BrokenServer if it does not say."""
        error = answer.json()["error"]
        self._told.refused[error["code"]] += 1
        if answer.headers.get("x-should-retry") == "false":
            return MINUTE_S
        told = answer.headers.get("retry-after-ms")
        if told is not None:
            return float(told) / 1000
        if "retry-after" not in answer.headers:
            raise BrokenServer(f"a 429 without Retry-After: {error}")
        return float(answer.headers["retry-after"])


async def document(answer: httpx.Response) -> dict[str, int]:
    usage: dict[str, int] = json.loads(await answer.aread())["usage"]
    return usage


async def streamed(answer: httpx.Response) -> dict[str, int]:
    """Return the usage at a stream's end. Raises BrokenServer if a chunk before it tells any, or none comes."""
    found: dict[str, int] | None = None
    async for line in answer.aiter_lines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line[6:])
        if found is not None:
            raise BrokenServer(f"an event after the one with the usage: {line[:200]}")
        if event.get("usage"):
            if event["choices"]:
                raise BrokenServer(f"usage in an event that nobody asked to have it: {line[:200]}")
            found = event["usage"]
    if found is None:
        raise BrokenServer("a stream without usage")
    return found


async def load(port: int, model: str, keys: dict[str, str], clients: int, seconds: float) -> dict[str, Told]:
    """Run all clients; return what each key was told. Raises BrokenServer."""
    told = {name: Told() for name in keys}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients * len(keys))
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, timeout=120, limits=limits, trust_env=False) as session:
        until, seeds = time.monotonic() + seconds, itertools.count(1, 1000)
        async with asyncio.TaskGroup() as group:
            for name, key in keys.items():
                for _ in range(clients):
                    client = Client(
                        session, model, key, told[name], next(seeds), is_long="concurrency" in LIMITS[name]
                    )
                    group.create_task(client.run(until))
    return told


def key_file(folder: Path) -> tuple[Path, dict[str, str]]:
    """Write the key file; return it and the keys by name."""
    keys = {name: new_key() for name in LIMITS}
    written = {
        name: {"sha256": [hash_key(key.encode())], "limits": LIMITS[name]} for name, key in keys.items()
    }
    path = folder / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": written}))
    path.chmod(0o600)
    return path, keys


def lines_of(log: Path) -> Iterator[Line]:
    """Yield the requests in the gateway's log that an answer had begun for."""
    for text in log.read_text().splitlines():
        event = json.loads(text)
        if event.get("event") == "request" and event["status"] in (200, 499) and event["key"]:
            ended = datetime.fromisoformat(event["ts"]).timestamp()
            begun = ended - event["duration_ms"] / 1000
            used = event["prompt_tokens"] or 0, event["completion_tokens"] or 0
            yield Line(event["id"], event["key"], begun, ended, *used)


def fullest_minute(amounts: Sequence[tuple[float, int]]) -> int:
    """Return the largest sum of amounts in any minute, less JITTER_S. amounts: moment and amount, in order."""
    most = running = first = 0
    for moment, amount in amounts:
        running += amount
        while amounts[first][0] <= moment - MINUTE_S + JITTER_S:
            running -= amounts[first][1]
            first += 1
        most = max(most, running)
    return most


def at_once(lines: Sequence[Line]) -> tuple[int, float]:
    """Return the most requests at a time, and their mean number between the first and the last."""
    begun = [(min(line.begun + JITTER_S, line.ended), 1) for line in lines]
    moments = sorted([*begun, *[(line.ended, -1) for line in lines]])
    most = now = 0
    area, before = 0.0, moments[0][0]
    for moment, change in moments:
        area += now * (moment - before)
        now, before = now + change, moment
        most = max(most, now)
    return most, area / (moments[-1][0] - moments[0][0])


AMOUNTS: dict[str, Callable[[Line], int]] = {
    "rpm": lambda line: 1,
    "tpm_in": lambda line: line.prompt,
    "tpm_out": lambda line: line.completion,
}


@dataclass(frozen=True, slots=True)
class Share:
    """What a key used of one of its limits: in the fullest minute (or at most at a time), and on the whole.
    binds: it is the limit of which the key used most, and some of its requests were refused."""

    key: str
    limit: str
    amount: int
    most: float
    whole: float
    binds: bool

    @property
    def is_missed(self) -> bool:
        """Of requests at a time only the most is judged: between two of them a client waits as long as it was told."""
        is_under = self.binds and self.limit != "concurrency" and self.whole < LEAST_UNDER
        return self.most > MOST_OVER or is_under


def share(name: str, limit: str, lines: Sequence[Line], seconds: float) -> Share:
    """Return what the requests in `lines`, all of one key and in order, used of its limit."""
    amount = LIMITS[name][limit]
    if limit == "concurrency":
        most, mean = at_once(lines)
        return Share(name, limit, amount, most / amount, mean / amount, False)
    if limit == "monthly_tokens":
        used = sum(line.prompt + line.completion for line in lines) / amount
        return Share(name, limit, amount, used, used, False)
    amounts = [(line.begun, AMOUNTS[limit](line)) for line in lines]
    minutes = math.ceil(seconds / MINUTE_S)
    whole = sum(one for _, one in amounts) / (amount * minutes)
    return Share(name, limit, amount, fullest_minute(amounts) / amount, whole, False)


def bills(state: Path) -> dict[str, tuple[int, int]]:
    """Return prompt tokens and completion tokens by key, from the gateway's record."""
    with closing(sqlite3.connect(f"file:{state / FILE}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT key, sum(tokens_in), sum(tokens_out) FROM usage GROUP BY key")
        return {key: (tokens_in, tokens_out) for key, tokens_in, tokens_out in rows}


def environment(
    folder: Path, worker: str, model: str, keys: Path, processes: int, port: int
) -> dict[str, str]:
    write_card(folder / "docker" / model, model)
    (folder / "workers").write_text(f"{model} {worker}\n")
    (folder / "state").mkdir()
    ours = {
        "CARDS_DIR": folder / "docker", "WORKERS_FILE": folder / "workers", "DNS": 0, "PORT": port,
        "OPS_PORT": free_port(), "API_KEYS_FILE": keys, "STATE_DIR": folder / "state", "PROCESSES": processes,
    }  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return inherited | {f"GATEWAY_{name}": str(value) for name, value in ours.items()}


def is_up(port: int, model: str, key: str) -> bool:
    """Return whether the gateway lists the model as ready for the key."""
    try:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/v1/models", headers={"authorization": f"Bearer {key}"}, trust_env=False
        )
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and model in [one["id"] for one in answer.json()["data"]]


@dataclass(frozen=True, slots=True)
class Bill:
    """The record's tokens of a key (prompt, completion), beside those that its clients were told in whole answers, and
    those that the gateway's log has of streams given up. untold: such streams of which it has none."""

    key: str
    billed: tuple[int, int]
    whole: tuple[int, int]
    given_up: tuple[int, int]
    untold: int

    @property
    def is_missed(self) -> bool:
        return bool(self.untold) or self.billed != tuple(
            map(sum, zip(self.whole, self.given_up, strict=True))
        )


def bill(name: str, told: Told, lines: Sequence[Line], billed: tuple[int, int]) -> Bill:
    """Return the bill of a key whose requests are in `lines`."""
    left = [line for line in lines if line.id in told.given_up]
    of_left = sum(line.prompt for line in left), sum(line.completion for line in left)
    return Bill(name, billed, (told.prompt, told.completion), of_left, sum(not line.prompt for line in left))


def counters(worker: str) -> tuple[int, int]:
    """Return the prompt and completion tokens of all requests that vLLM has had."""
    text = httpx.get(f"{worker}/metrics", trust_env=False).text
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    found = [
        sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))
        for name in names
    ]
    return int(found[0]), int(found[1])


def measure(given: argparse.Namespace) -> int:
    """Raises BrokenServer."""
    with tempfile.TemporaryDirectory(prefix="octet-limits-") as place:
        folder, port = Path(place), free_port()
        file, keys = key_file(folder)
        variables = environment(folder, given.worker, given.model, file, given.processes, port)
        log, before = folder / "gateway.log", counters(given.worker)
        with log.open("wb") as output:
            gateway = subprocess.Popen(python_module("gateway"), env=variables, stdout=output, stderr=output)
            try:
                if not wait_until(lambda: is_up(port, given.model, keys["both"]), START_S):
                    raise BrokenServer(f"the gateway is not ready: {log.read_text()[-1000:]}")
                told = asyncio.run(load(port, given.model, keys, given.clients, given.seconds))
            finally:
                end(gateway)
        lines, billed = sorted(lines_of(log), key=lambda line: line.begun), bills(folder / "state")
    at_worker = [now - then for now, then in zip(counters(given.worker), before, strict=True)]
    results: list[Share | Bill] = []
    for name, limits in LIMITS.items():
        own = [line for line in lines if line.key == name]
        shares = [share(name, limit, own, given.seconds) for limit in limits]
        fullest = max(one.whole for one in shares)
        results += [replace(one, binds=one.whole == fullest and bool(told[name].refused)) for one in shares]
        results.append(bill(name, told[name], own, billed.get(name, (0, 0))))
    print(*map(text_of, results), *map(text_of_told, told.items()), sep="\n")
    all_billed = [sum(one) for one in zip(*billed.values(), strict=True)]
    print(f"all: billed {all_billed}, by the worker's counters {at_worker}")
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in results]))
    return int(any(one.is_missed for one in results))


def text_of(one: Share | Bill) -> str:
    state = "MISSED" if one.is_missed else "holds "
    if isinstance(one, Share):
        return f"{state} {one.key:12} {one.limit:14} {one.amount:5}: most {one.most:.4f}, on the whole {one.whole:.4f}"
    given_up = f"of streams given up {one.given_up}, {one.untold} untold"
    return f"{state} {one.key:12} billed {one.billed}, told in whole answers {one.whole}, {given_up}"


def text_of_told(item: tuple[str, Told]) -> str:
    name, told = item
    refused = ", ".join(f"{count} {code}" for code, count in told.refused.items()) or "none"
    return f"       {name:12} {told.answers} whole answers, {len(told.given_up)} given up, refused: {refused}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__.split("\n")[0])
    parser.add_argument("worker", help="URL of a running vLLM")
    parser.add_argument("model")
    parser.add_argument(
        "--seconds", type=float, default=598, help="a little below whole minutes (default 598)"
    )
    parser.add_argument("--clients", type=int, default=20, help="of each of the ten keys (default 20)")
    parser.add_argument("--processes", type=int, default=2, help="of the gateway (default 2)")
    parser.add_argument("--json", type=Path)
    try:
        return measure(parser.parse_args())
    except (BrokenServer, ExceptionGroup) as broken:
        print(broken, *getattr(broken, "exceptions", ()), sep="\n", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
