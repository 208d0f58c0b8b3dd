"""Proves one row on this host's GPUs and writes what happened, whatever it was, as one JSON file.

usage: python -m bench.gpu.prove ROW --out FOLDER [--gateway] [--caches FOLDER] [--port 18000]
Exit codes: 0 the record is written, whatever it says · 2 no such row.
"""

import argparse
import datetime
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from bench.gpu import chat, checkpoint, facts, front, loads, recipe, shards
from bench.gpu.rows import Row, row
from bench.gpu.worker import started

Keep = Callable[[dict[str, Any]], None]
PORT, FRONT_BEHIND = 18000, 100
TOKENS = 128
IMAGES = {"red": (220, 20, 20), "blue": (20, 20, 220)}


@dataclass(frozen=True, slots=True)
class Plan:
    """One proof: where its files go, where caches are, whether the gateway takes part, the worker's port."""

    row: Row
    out: Path
    caches: Path
    gateway: bool
    port: int = PORT

    @property
    def place(self) -> Path:
        """The caches of the slug: its image keeps them on a volume of its own."""
        return self.caches / self.row.slug

    @property
    def state_of_caches(self) -> str:
        """`cold`: none; `warm`: this row has been ready with them; `shared`: others of its slug were started."""
        if not self.place.exists():
            return "cold"
        return "warm" if self.mark.exists() else "shared"

    @property
    def mark(self) -> Path:
        return self.place / f"{self.row.key}.ready"


def prove(plan: Plan) -> dict[str, Any]:
    """The record of one row."""
    record = heading(plan)
    place = plan.out / "files" / plan.row.key
    checkpoint.write(place, plan.row)
    if plan.row.files:
        shards.write(place)
    config = place / "serve.yaml"
    config.write_text(yaml.safe_dump(recipe.options(plan.row)))
    words = recipe.command(place, config, plan.row.slug, plan.port)
    environment = recipe.environment(plan.row, plan.place) | {"VLLM_SERVER_DEV_MODE": "1"}
    record |= said(plan, words, environment, place)
    plan.place.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with started(words, environment, plan.out / f"{plan.row.key}.log", plan.port) as worker:
        outcome = worker.wait_ready(plan.row.ready_within_s)
        record |= {"outcome": outcome, "after_s": round(time.monotonic() - start, 1)}
        record |= {
            "phases_s": dict(worker.timeline.seconds),
            **facts.read(worker.lines),
            "gpu_memory": gpu_memory(),
        }
        save(plan, record)
        if outcome == "ready":
            plan.mark.touch()
            record |= tried(plan, place, lambda more: save(plan, record | more))
        else:
            record["problems"] = facts.problems(worker.lines)
    return record


def said(plan: Plan, words: list[str], environment: dict[str, str], place: Path) -> dict[str, Any]:
    """What was started, without this host's paths."""

    def plain(text: str) -> str:
        return text.replace(f"{place}/serve.yaml", "serve.yaml").replace(str(place), "CHECKPOINT")

    variables = {name: value.replace(str(plan.place), "CACHES") for name, value in environment.items()}
    command = " ".join(["vllm", *map(plain, words)])
    return {"command": command, "environment": variables, "options": recipe.options(plan.row)}


def tried(plan: Plan, place: Path, keep: Keep) -> dict[str, Any]:
    """What a ready worker did, with the reason where it did not do all."""
    done: dict[str, Any] = {"chats": [], "loads": []}
    try:
        use(plan, place, done, keep)
    except Exception as error:  # noqa: BLE001  # whatever it was: the record tells it, and what there was before stays
        done["failure"] = repr(error)[:600]
    return done


def heading(plan: Plan) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {
        "row": plan.row.key, "slug": plan.row.slug, "title": plan.row.title, "date": now, "vllm": version("vllm"),
        "gpus": gpus(),
        "used_gpus": plan.row.gpus, "layers": plan.row.layers, "files": plan.row.files,
        "caches": plan.state_of_caches, "config": dict(plan.row.config),
    }  # fmt: skip


def use(plan: Plan, place: Path, done: dict[str, Any], keep: Keep) -> None:
    """A chat, one again warm, and loads: kept after each, so that a host that goes early leaves what it had."""
    base, model = f"http://127.0.0.1:{plan.port}", recipe.served_names(plan.row.slug)[0]
    target = loads.Target(base, place, model, plan.out / "files")
    done["chats"] = [asdict(chat.ask(base, model, TOKENS)) for _ in range(2)]
    keep(done)
    if plan.row.images:
        done["images"] = {name: asdict(shown(base, model, colour)) for name, colour in IMAGES.items()}
        keep(done)
    if not plan.gateway:
        load_all(plan.row, target, {"direct": base}, done, keep)
        return
    with front.gateway(plan.row.slug, [base], plan.port + FRONT_BEHIND, plan.out) as through:
        done["gateway"] = form_of_gateway()
        done["chat_through_gateway"] = asdict(chat.ask(through, model, TOKENS))
        load_all(plan.row, target, {"direct": base, "gateway": through}, done, keep)


def shown(base: str, model: str, colour: tuple[int, int, int]) -> chat.Answer:
    return chat.ask(base, model, TOKENS, chat.about(chat.png(colour)))


def load_all(row: Row, target: loads.Target, bases: dict[str, str], done: dict[str, Any], keep: Keep) -> None:
    for concurrency in row.loads:
        done["loads"] += loads.measure(target, bases, concurrency)
        keep(done)


def form_of_gateway() -> str:
    """Whether its hot modules are compiled, as in its image."""
    found = importlib.util.find_spec("gateway.proxy.handler")
    return "compiled" if found and found.origin and found.origin.endswith(".so") else "plain Python"


def gpus() -> list[str]:
    """Names and drivers of the cards here."""
    return query("name,driver_version")


def gpu_memory() -> list[str]:
    return query("memory.used,memory.total")


def query(fields: str) -> list[str]:
    words = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout.strip().split("\n")


def save(plan: Plan, record: dict[str, Any]) -> None:
    (plan.out / f"{plan.row.key}-{record['caches']}.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.prove", description=__doc__)
    parser.add_argument("row")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--caches", type=Path, default=Path("/tmp/octet-caches"))  # a bare host's own
    parser.add_argument(
        "--port", type=int, default=PORT, help="of the worker; others beside it need their own"
    )
    parser.add_argument("--gateway", action="store_true", help="measure through the gateway too")
    given = parser.parse_args()
    try:
        chosen = row(given.row)
    except LookupError as error:
        print(f"prove: {error}", file=sys.stderr)
        return 2
    (given.out / "files").mkdir(parents=True, exist_ok=True)
    given.caches.mkdir(parents=True, exist_ok=True)
    plan = Plan(chosen, given.out.resolve(), given.caches.resolve(), given.gateway, given.port)
    save(plan, prove(plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
