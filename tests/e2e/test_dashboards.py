"""Dashboards over a stack at work: no panel is without data.

Real vLLM with two twins, one of which drafts; the GPUs are written from DCGM's documented default counters (dcgm.py).
"""

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Iterator
from string import Template
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, PROMETHEUS, ROOT, Stack, wait_for
from tests.twins import dialogues, dialogues_step

BOARDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))
}
pytestmark = pytest.mark.full  # three minutes: `make test-observability`
DRAFTS = "step3p5-bf16-mtp"  # slug and model
SLOW = {
    "MODEL_CACHE_MOST_BYTES_PER_S": "150000",
    "TWIN_XID": "79",
}  # so that the job is seen; so that an alert fires
SCRAPE_S = 5  # the data source's timeInterval
SPAN_S = 360
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


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Title, PromQL and whether it is for now, of every panel, with variables filled in as Grafana does."""
    values = {variable["name"]: variable["allValue"] for variable in board["templating"].get("list", ())}
    values["__rate_interval"] = f"{4 * SCRAPE_S}s"
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], Template(target["expr"]).substitute(values), bool(target.get("instant"))


def gives_data(http: httpx.Client, query: str, is_now: bool) -> bool:
    """Whether Prometheus answers with at least one finite number, now or in the last minutes."""
    now = time.time()
    span = {"time": now} if is_now else {"start": now - SPAN_S, "end": now, "step": SCRAPE_S}
    answer = http.post("query" if is_now else "query_range", data={"query": query, **span}).json()
    assert answer["status"] == "success", f"{query}: {answer.get('error')}"
    found = answer["data"]["result"]
    samples = [sample for series in found for sample in series.get("values") or [series["value"]]]
    return any(math.isfinite(float(value)) for _, value in samples)


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_is_without_data(at_work: Stack, name: str) -> None:
    """Every query of every panel gives data; the error names those that do not."""
    empty = set(queries(BOARDS[name]))
    assert empty

    def none_left() -> bool:
        empty.difference_update([one for one in empty if gives_data(http, *one[1:])])
        return not empty

    http = httpx.Client(base_url=f"{PROMETHEUS}/api/v1/", timeout=30, trust_env=False)
    with http, contextlib.suppress(TimeoutError):
        wait_for(f"{name}: data in every panel", none_left, 180, every_s=SCRAPE_S)
    assert sorted(f"{title}: {query}" for title, query, _ in empty) == []


@pytest.mark.parametrize("name", BOARDS)
def test_every_variable_has_values(at_work: Stack, name: str) -> None:
    """A choice without an entry makes an empty page."""
    for variable in BOARDS[name]["templating"].get("list", ()):
        metric, label = variable["query"].removeprefix("label_values(").removesuffix(")").split(", ")
        values = {found["metric"].get(label) for found in at_work.query(f"group by ({label}) ({metric})")}
        assert values - {None, ""}, variable["query"]


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
