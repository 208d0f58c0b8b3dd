"""Faults, and who is woken: Prometheus' rules as they are but twenty times faster, over the real stack.

What is not a rule's is not faster: how soon the gateway notices, how often Prometheus scrapes, how long vLLM starts.
"""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
import yaml
from docker.models.containers import Container
from openai import OpenAI

from observability.boards import thresholds
from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.faster_rules import LEAST_RANGE_S, faster
from tests.e2e.stack import GATEWAY, PROMETHEUS, ROOT, Stack, get, wait_for
from tests.e2e.test_cycles import started_at, strike
from tests.e2e.test_hang import FREEZE, freeze
from tests.e2e.test_lifecycle import ask
from tests.twins import dialogues

MADE = faster(20)
LEAST_FAILURES = 5  # as the rules have it: fewer say nothing
ALERTS = {rule["alert"]: rule for group in MADE["groups"] for rule in group["rules"] if "alert" in rule}
PAGES = {name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "page"}
ROOM = {"models": {MODEL: {"in_flight_per_worker": 2, "queue": {"most": 100, "wait_s": 600}}}}
CHAT = f"{GATEWAY}/v1/chat/completions"
SHORT = {"model": MODEL, "messages": list(dialogues.ENGLISH.messages), "max_tokens": 4}
LONG = SHORT | {"max_tokens": 8000, "ignore_eos": True}
JSON = {"content-type": "application/json"}
THAW = FREEZE.replace("SIGSTOP", "SIGCONT")
HUB = ("up", "-d", "--no-deps", "--wait", "hub")
OTHER = "kimi-k2p5"  # a slug whose weights are not there yet
COMES = f'model_cache_bytes_done{{slug="{OTHER}"}} > 0 and on (slug) model_cache_phase{{phase="downloading"}} == 1'

# Seconds until a fault shows in what Prometheus scrapes: at the gateway after three rounds of probes and the timeout of
# the last, on an engine once nothing has moved in the shortest range there is
PROBED_S, STILL_S = 3 * 2.2 + 2, LEAST_RANGE_S
SPARE_S = 5 + 1 + 5  # a scrape, an evaluation, and two cores for all of this


@pytest.fixture(scope="module")
def fast(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Prometheus with the faster rules, judged every second, and a gateway that lets two requests in at a time."""
    folder = tmp_path_factory.mktemp("prometheus")
    folder.chmod(0o755)
    shipped = yaml.safe_load((ROOT / "observability/prometheus/prometheus.yaml").read_text())
    shipped["global"]["evaluation_interval"] = "1s"
    for name, content in {"prometheus": shipped, "rules": MADE, "models": ROOM}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    anew(stack, PROMETHEUS_DIR=str(folder), GATEWAY_MODELS_FILE=str(folder / "models.yaml"))
    yield stack
    anew(stack)


def anew(stack: Stack, **settings: str) -> None:
    """Both with other settings; the gateway while Prometheus runs, which then forgets what the old one told."""
    stack.compose("up", "-d", "--no-deps", "--wait", "gateway", **settings)
    stack.wait_ready()
    wait_for("a gateway without requests", lambda: not stack.query("gateway_requests_total"), 60)
    stack.compose("up", "-d", "--no-deps", "--wait", "prometheus", **settings)


@dataclass
class Watch:
    """Over Prometheus' alerts, from now on."""

    stack: Stack
    since: float = field(default_factory=time.time)

    def fires(self, alert: str, shows_s: float) -> None:
        """Its wait after the fault shows, and no sooner than its wait after the fault."""
        wait_s = float(ALERTS[alert]["for"].removesuffix("s"))
        most_s = shows_s + wait_s + SPARE_S
        wait_for(alert, lambda: alerts().get(alert) == "firing", most_s - self.passed_s())
        print(f"{alert}: {self.passed_s():.0f} s after the fault, of at most {most_s:.0f}")
        assert self.passed_s() >= wait_s

    def ends(self, alert: str) -> None:
        """All is well again, and all the while nobody was woken by another page, however shortly it fired."""
        self.stack.wait_ready()
        wait_for(f"the end of {alert}", lambda: alert not in alerts(), 60)
        fired = f'ALERTS{{alertstate="firing",severity="page"}}[{math.ceil(self.passed_s())}s]'
        names = {one["metric"]["alertname"] for one in self.stack.query(f"max_over_time({fired})")}
        assert names == {alert} & PAGES

    def passed_s(self) -> float:
        return time.time() - self.since


def alerts() -> dict[str, str]:
    """All that are pending or firing, each with its state."""
    found = json.loads(get(f"{PROMETHEUS}/api/v1/alerts", timeout_s=20)[1])["data"]["alerts"]
    return {one["labels"]["alertname"]: one["state"] for one in found}


def quiet(stack: Stack) -> None:
    """Until the model is ready, all has been scraped twice, and nobody is about to be woken."""
    up = 'up{job=~"gateway|worker|launcher"}[11s]'
    stack.wait_ready()
    scraped = f"count(min_over_time({up}) == 1 and count_over_time({up}) > 1) >= 3"
    wait_for("scrapes", lambda: stack.query(scraped) or None, 60)
    wait_for("quiet", lambda: not PAGES & alerts().keys(), 180)


@contextmanager
def asking() -> Iterator[Counter[int]]:
    """Somebody asks every second, once the gateway has noticed that it has no worker: what fails before would count
    twenty times too much. Yields how often each status was the answer, 0 for none."""
    over, statuses = threading.Event(), Counter[int]()

    def ask_on() -> None:
        while get(f"{GATEWAY}/ready")[0] == 200 and not over.wait(0.2):
            pass
        while not over.wait(1):
            statuses[status()] += 1

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


def status() -> int:
    try:
        return httpx.post(CHAT, json=SHORT, timeout=4).status_code
    except httpx.TransportError:
        return 0


def refused_enough(statuses: Counter[int]) -> None:
    """Until as many have failed as would do for an alert about the error budget."""
    wait_for("refusals", lambda: statuses[503] > LEAST_FAILURES, 60)


@contextmanager
def paused(container: Container) -> Iterator[None]:
    container.pause()
    try:
        yield
    finally:
        container.unpause()


def test_a_worker_that_is_paused(fast: Stack) -> None:
    """Its model is down: that is one page, whatever clients get meanwhile."""
    quiet(fast)
    watch = Watch(fast)
    with asking() as statuses:
        with paused(fast.container(SLUG)):
            watch.fires("ModelDown", PROBED_S)
            refused_enough(statuses)
        watch.ends("ModelDown")


@pytest.fixture
def slow_start(fast: Stack) -> Iterator[Container]:
    """The worker with a quarter of a core, so that its start takes as long as a large model's."""
    worker = fast.container(SLUG)
    worker.update(cpu_period=100_000, cpu_quota=25_000)
    yield worker
    worker.update(cpu_quota=-1)


@pytest.mark.full
@pytest.mark.parametrize("gone_s", [0, 3], ids=["at-once", "later"])
def test_a_worker_that_is_killed(fast: Stack, slow_start: Container, gone_s: float) -> None:
    """Until it is ready again its model is down, though to a gateway that saw its name gone it is one that loads."""
    quiet(fast)
    before, watch = started_at(fast, SLUG), Watch(fast)
    with asking() as statuses:
        kill(slow_start, gone_s)
        watch.fires("ModelDown", PROBED_S)
        refused_enough(statuses)
        slow_start.update(cpu_quota=-1)
        watch.ends("ModelDown")
    assert started_at(fast, SLUG) != before


def kill(worker: Container, gone_s: float) -> None:
    """Docker starts it again at once, or, as after several deaths in a row, later than the gateway looks for it."""
    if not gone_s:
        strike(worker, kill=True)
        return
    worker.kill()
    time.sleep(gone_s)
    worker.start()


@pytest.mark.full
def test_an_engine_that_freezes(fast: Stack, client: OpenAI) -> None:
    """In the middle of a stream, and /health answers."""
    assert ask(client)  # before a first answer nothing is judged
    quiet(fast)
    with httpx.stream("POST", CHAT, json=LONG | {"stream": True}, timeout=60) as answer:
        assert answer.status_code == 200
        wait_for("a request at work", lambda: fast.query("vllm:num_requests_running > 0") or None, 20)
        watch = Watch(fast)
        freeze(fast)
        try:
            watch.fires("EngineHangs", STILL_S)
        finally:
            fast.run_in(SLUG, THAW)
    watch.ends("EngineHangs")


@pytest.mark.full
def test_a_queue_that_grows(fast: Stack) -> None:
    """Forty long requests at once, of which the worker gets two at a time."""
    quiet(fast)
    watch = Watch(fast)
    with waiting(40):
        watch.fires("QueueGrows", thresholds.QUEUE_WAIT_S)
    watch.ends("QueueGrows")


@contextmanager
def waiting(count: int) -> Iterator[None]:
    """Clients that have sent a request, and leave at the end."""
    with ExitStack() as left:
        for _ in range(count):
            connection = HTTPConnection("127.0.0.1", 8000, timeout=10)
            left.callback(connection.close)
            connection.request("POST", "/v1/chat/completions", json.dumps(LONG), JSON)
        yield


@pytest.fixture
def trickle(fast: Stack, tmp_path: Path) -> Iterator[Container]:
    """A weights job at work, on a volume of its own and with a hub that is slow: what is not sent yet can stall."""
    tmp_path.chmod(0o777)
    fast.compose(*HUB, HUB_BYTES_PER_S="50000")
    try:
        fast.compose("up", "-d", "--no-deps", "--build", f"{OTHER}-weights", WEIGHTS_DIR=str(tmp_path))
        yield fast.container(f"{OTHER}-weights")
    finally:
        fast.compose(*HUB)
        fast.compose("rm", "--stop", "--force", f"{OTHER}-weights")


@pytest.mark.full
def test_weights_that_stop_coming(fast: Stack, trickle: Container) -> None:
    """The hub stands still in the middle of a file: a ticket, and no page. Once it is back, the rest comes."""
    wait_for("a part of the weights", lambda: fast.query(COMES) or None, 40)
    quiet(fast)
    watch = Watch(fast)
    with paused(fast.container("hub")):
        watch.fires("WeightsStalled", STILL_S)
    watch.ends("WeightsStalled")
    fast.compose(*HUB)
    assert trickle.wait(timeout=60)["StatusCode"] == 0


@pytest.mark.full
def test_a_weights_job_that_gives_up(fast: Stack, trickle: Container) -> None:
    """The hub wants a token in the middle of a file: the job ends, a ticket says so until a run is at work again."""
    wait_for("a part of the weights", lambda: fast.query(COMES) or None, 40)
    quiet(fast)
    watch = Watch(fast)
    fast.compose(*HUB, HUB_BYTES_PER_S="50000 --token another")
    assert trickle.wait(timeout=120)["StatusCode"] == 6
    watch.fires("WeightsJobFailed", watch.passed_s())
    fast.compose(*HUB, HUB_BYTES_PER_S="25000")
    trickle.start()
    watch.ends("WeightsJobFailed")
