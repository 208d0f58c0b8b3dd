"""One gateway with a fleet for most tests, and a factory for those that need their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fake_worker import FakeWorker
from tests.integration.gateway.harness import Gateway, Pools, Site, wait_until

StartWorker = Callable[..., FakeWorker]
StartGateway = Callable[..., Gateway]


@pytest.fixture(scope="session")
def start_worker() -> Iterator[StartWorker]:
    """Starts fake workers that end with the session."""
    with ExitStack() as stack:

        def start(*models: str, **facts: float) -> FakeWorker:
            worker = FakeWorker(models, **facts).start()
            stack.callback(worker.stop)
            return worker

        yield start


@pytest.fixture(scope="session")
def fleet(start_worker: StartWorker) -> Pools:
    """`alpha`, `pair`, `thinker` (it reasons) are ready, `starting` is loading, `misnamed` serves other names."""
    return {
        "alpha": [start_worker("alpha", "alpha-chat")],
        "pair": [start_worker("pair"), start_worker("pair")],
        "thinker": [start_worker("thinker")],
        "starting": [start_worker("starting", health=503)],
        "misnamed": [start_worker("somebody-else")],
    }


@pytest.fixture(scope="session")
def gateway(fleet: Pools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway in front of the fleet; `absent` is declared and has no worker. It ends cleanly and quietly."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.declare("alpha", "alpha", "alpha-chat")
    site.declare("thinker", "thinker", reasons=True)
    for slug in ("pair", "starting", "misnamed", "absent"):
        site.declare(slug, slug)
    site.attach(fleet)
    started = Gateway(site, GATEWAY_MAX_BODY_BYTES=1_000_000)
    wait_ready(started, fleet)
    yield started
    wait_until(lambda: started.in_flight() == 0, "every lease given back")
    started.terminate()
    assert started.end() == (0, "")


def wait_ready(gateway: Gateway, fleet: Pools) -> None:
    for slug, pool in fleet.items():
        gateway.wait_for(slug, *[slug if slug in ("starting", "misnamed") else "ready"] * len(pool))
    wait_until(
        lambda: gateway.slug("starting")["workers"][0]["failed_probes"], "a first probe of every worker"
    )


@pytest.fixture
def worker(fleet: Pools) -> FakeWorker:
    """The worker of `alpha`."""
    fleet["alpha"][0].forget()
    return fleet["alpha"][0]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site where `alpha` is declared and has no worker yet."""
    site = Site(tmp_path)
    site.declare("alpha", "alpha")
    return site


@pytest.fixture
def own_worker(start_worker: StartWorker) -> FakeWorker:
    """A worker of `alpha` for one test alone."""
    return start_worker("alpha")


@pytest.fixture
def start_gateway(site: Site, own_worker: FakeWorker) -> Iterator[StartGateway]:
    """Starts a gateway for one test, ready to serve `alpha` by `own_worker`; whatever has not ended is killed."""
    site.attach({"alpha": [own_worker]})
    started: list[Gateway] = []

    def start(**settings: object) -> Gateway:
        started.append(Gateway(site, **settings))
        started[-1].wait_for("alpha", "ready")
        return started[-1]

    yield start
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.process.kill()
            gateway.end()
