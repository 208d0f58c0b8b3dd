"""The ops port: /metrics and scrape targets for Prometheus, /workers for people and programs."""

from typing import Any

from fastapi import FastAPI, Response

from gateway.control.framework import bare_app
from gateway.discovery.probes import LAUNCHER_PORT, WEIGHTS_PORT, WORKER_PORT
from gateway.fleet.fleet import Fleet
from gateway.fleet.workers import Worker
from gateway.telemetry.metrics import Metrics

Json = dict[str, Any]
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format


def ops_app(fleet: Fleet, metrics: Metrics) -> FastAPI:
    """Return the application of a gateway process's ops port; the parent of several has `processes.ops_app`."""
    app = bare_app("Octet gateway, ops")

    @app.get("/metrics")
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=EXPOSITION)

    @app.get("/workers")
    async def workers() -> Json:
        """Every slug with its state, workers and weights job."""
        return {"slugs": [describe_slug(fleet, slug) for slug in fleet.slugs]}

    @app.get("/targets/worker")
    async def worker_targets() -> list[Json]:
        """Every worker as a Prometheus http_sd target, whatever its state."""
        return [target(worker.slug, worker.address) for worker in fleet.workers()]

    @app.get("/targets/launcher")
    async def launcher_targets() -> list[Json]:
        """The launcher beside every worker that listens on the port that launchers give it."""
        ours = (worker for worker in fleet.workers() if worker.port == WORKER_PORT)
        return [target(worker.slug, f"{worker.host}:{LAUNCHER_PORT}") for worker in ours]

    @app.get("/targets/weights")
    async def weights_targets() -> list[Json]:
        """Every weights job that runs now, likewise."""
        running = (slug for slug, status in fleet.slugs.items() if status.weights is not None)
        return [target(slug, f"{slug}-weights:{WEIGHTS_PORT}") for slug in running]

    return app


def target(slug: str, address: str) -> Json:
    """Return one target group in Prometheus' HTTP service discovery format, of which /targets/... are lists."""
    return {"targets": [address], "labels": {"slug": slug}}


def describe_slug(fleet: Fleet, slug: str) -> Json:
    """Return one slug's entry of /workers; `weights` is its weights job's progress report, or null."""
    status = fleet.slugs[slug]
    card = fleet.catalog.by_slug[slug]
    workers = [describe_worker(worker) for worker in status.workers.values()]
    return {
        "slug": slug,
        "models": card.names,
        "state": status.state.name.lower(),
        "workers": workers,
        "weights": status.weights,
    }


def describe_worker(worker: Worker) -> Json:
    """Return a worker's entry of /workers. `share`: of its usual requests; `start`: its launcher's report, or null."""
    return {
        "address": worker.address,
        "state": worker.state,
        "reason": worker.reason,
        "in_flight": worker.in_flight,
        "waiting": worker.waiting,
        "kv_use": worker.kv_use,
        "share": round(worker.slow_start_factor, 2),
        "start": worker.start,
        "failed_probes": worker.health.failed_probes,
        "failed_requests": worker.health.consecutive_failures,
    }
