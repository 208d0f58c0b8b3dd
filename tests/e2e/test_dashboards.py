"""Dashboards over a stack at work: every query gives data, every picture is whole.

Real vLLM with two twins, one of which drafts; the GPUs are written from DCGM's documented default counters (dcgm.py).
PICTURES=folder: where the pictures go, else out/dashboards.
"""

import contextlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from observability.picture.__main__ import main as picture
from observability.picture.__main__ import span_of
from observability.picture.panels import Target, read
from observability.picture.prometheus import Prometheus
from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, PROMETHEUS, ROOT, Stack, wait_for
from tests.twins import dialogues, dialogues_step

BOARDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))
}
pytestmark = pytest.mark.full  # three minutes: `make test-observability`
FOLDER = Path(os.environ.get("PICTURES") or ROOT / "out/dashboards")
DRAFTS = "step3p5-bf16-mtp"  # slug and model
SLOW = {
    "MODEL_CACHE_MOST_BYTES_PER_S": "150000",
    "TWIN_XID": "79",
}  # so that the job is seen; so that an alert fires
MINUTES = 6
ASKED = {MODEL: dialogues.ENGLISH, DRAFTS: next(iter(dialogues_step.TURNS.values()))}


def ask_all(http: httpx.Client) -> None:
    """Answers whole and in streams, a client that leaves, a model that nobody serves, a body that is none."""
    for model, turn in ASKED.items():
        body = {"model": model, "temperature": 0, **turn.request()}
        for stream in (False, True):
            http.post("/v1/chat/completions", json=body | {"stream": stream})
        more = {"max_tokens": 2000, "ignore_eos": True, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body | more) as answer:
            next(answer.iter_lines(), None)
    http.post("/v1/chat/completions", json={"model": "none-such"})
    http.post("/v1/chat/completions", content=b"{")


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Asks again and again, until the block ends."""
    done = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=GATEWAY, timeout=60) as http:
            while not done.wait(1):
                with contextlib.suppress(httpx.TransportError):
                    ask_all(http)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(120)


@pytest.fixture(scope="module")
def at_work(stack: Stack) -> Iterator[Stack]:
    """A second model, with its draft and its GPUs, and clients; afterwards as before."""
    stack.compose("--profile", DRAFTS, "build", "--quiet")
    with busy():
        try:
            stack.compose("up", "-d", DRAFTS, **SLOW)
            stack.compose("restart", SLUG)  # a second start is one whose end can be told
            for slug in (DRAFTS, SLUG):
                wait_for(
                    f"{slug} ready",
                    lambda slug=slug: stack.slug_status(slug)["state"] == "ready" or None,
                    600,
                )
            yield stack
        finally:
            services = [DRAFTS, f"{DRAFTS}-weights", f"{DRAFTS}-check", "dcgm-exporter"]
            stack.compose("rm", "--stop", "--force", *services)
    wait_for("the second gone", lambda: stack.slug_status(DRAFTS)["state"] == "absent" or None, 60)
    wait_for("no alert of its GPUs", lambda: not stack.query('ALERTS{alertname="GPUXid"}') or None, 60)


def answered(http: httpx.Client, target: Target) -> bool:
    """Whether a query gives a number."""
    found = Prometheus(http).series(target, span_of(MINUTES, time.time()))
    return any(math.isfinite(value) for series in found for _, value in series.points)


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_gives_data(at_work: Stack, name: str) -> None:
    """Of every panel, its variables filled in as Grafana does."""
    board = read(BOARDS[name], {}, span_of(MINUTES, time.time()))
    targets = [(panel.title, target) for panel in board.panels for target in panel.targets]
    assert targets
    with httpx.Client(base_url=PROMETHEUS, timeout=30) as http:
        for title, target in targets:
            wait_for(f"{title}: {target.expr}", lambda asked=target: answered(http, asked) or None, 60)


@pytest.mark.parametrize("name", BOARDS)
def test_every_variable_has_values(at_work: Stack, name: str) -> None:
    """A choice without an entry makes an empty page."""
    for variable in BOARDS[name]["templating"].get("list", ()):
        metric, label = variable["query"].removeprefix("label_values(").removesuffix(")").split(", ")
        values = {found["metric"].get(label) for found in at_work.query(f"group by ({label}) ({metric})")}
        assert values - {None, ""}, variable["query"]


@pytest.mark.parametrize("name", BOARDS)
def test_a_picture_is_whole(at_work: Stack, name: str, capsys: Any) -> None:
    """Drawn from what Prometheus answers now, and no panel of it is empty."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    words = [str(ROOT / f"observability/grafana/dashboards/{name}.json"), "--minutes", str(MINUTES)]
    code = picture([*words, "--out", str(FOLDER / f"{name}.svg")])
    assert (code, capsys.readouterr().err) == (0, "")


def test_every_metric_of_the_dashboards_is_scraped(at_work: Stack) -> None:
    """By its own name, whatever a query makes of it."""
    text = " ".join(
        target["expr"]
        for board in BOARDS.values()
        for panel in board["panels"]
        for target in panel.get("targets", ())
    )
    named = set(re.findall(r"\b(?:(?:gateway|launcher|model_cache)_|vllm:|DCGM_FI_DEV_)\w+", text))
    assert len(named) > 60
    missing = {name for name in named if not at_work.query(f"count(last_over_time({name}[15m]))")}
    assert missing == set()
