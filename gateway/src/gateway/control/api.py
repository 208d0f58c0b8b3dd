"""The control side, in FastAPI: models, health and readiness on the data port; metrics and workers on the ops port."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import __version__
from gateway.api.errors import GatewayError, InvalidRequest, MethodNotAllowed, RouteNotFound
from gateway.api.routes import TABLE, Kind, Route
from gateway.config.api_keys import KeyRing
from gateway.config.model_options import Models
from gateway.control import model_list
from gateway.discovery.probes import LAUNCHER_PORT, WEIGHTS_PORT, WORKER_PORT
from gateway.fleet.fleet import Fleet, ModelState
from gateway.fleet.workers import Worker
from gateway.server import cors
from gateway.telemetry.metrics import Metrics

Json = dict[str, Any]
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format
MODEL_BODY: Json = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string", "minLength": 1}},
}
RESPONSES: Json = {
    "200": {"description": "The worker's answer"},
    "4XX": {"description": "The request is wrong, as its error says"},
    "5XX": {"description": "No worker can answer now"},
}


def data_app(
    fleet: Fleet, models_file: Models, keys: KeyRing, started_at: int, is_draining: Callable[[], bool]
) -> FastAPI:
    """Everything on the data port but the proxied routes. started_at: Unix seconds, the models' `created`."""
    app = bare_app("Octet gateway")

    def describe(name: str) -> Json:
        model = models_file.model_of(name)
        aliases = models_file.listed(fleet.catalog.same_as(model))
        return model_list.describe_model(
            name, started_at, model, fleet.serving(model), fleet.pool(model), aliases
        )

    @app.get("/health")
    async def health() -> Json:
        """200 while this process lives, whatever the models do."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready(response: Response) -> Json:
        """200 with at least one ready model, 503 without one or while draining."""
        models = fleet.ready_models()
        response.status_code = 200 if models and not is_draining() else 503
        return {"ready": response.status_code == 200, "draining": is_draining(), "models": models}

    @app.get("/v1/models")
    async def models(request: Request) -> Json:
        """The ready models, in OpenAI's shape."""
        keys.check(request.headers.raw)
        names = models_file.listed(fleet.ready_models())
        return {"object": "list", "data": [describe(name) for name in names]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str, request: Request) -> Json:
        """One ready model; otherwise the error that a request for it would get."""
        keys.check(request.headers.raw)
        behind = models_file.model_of(model)
        if not fleet.catalog.resolve(behind) or fleet.model_state(behind) is not ModelState.READY:
            raise fleet.why_unavailable(behind)
        return describe(model)

    app.openapi = lambda: openapi_of(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def openapi_of(app: FastAPI) -> Json:
    """The data port's OpenAPI document: FastAPI's pages and every row of the table."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for route in TABLE:
            document["paths"].setdefault(route.path.decode(), {})[route.method.decode().lower()] = (
                describe_route(route)
            )
        app.openapi_schema = document
    return app.openapi_schema


def describe_route(route: Route) -> Json:
    """A row of the table, as OpenAPI has it; all but the model is the worker's to check."""
    described: Json = {"operationId": route.name, "summary": route.summary, "responses": RESPONSES}
    if route.kind is Kind.STORED:
        described["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    else:
        kind = "application/json" if route.kind is Kind.JSON else "multipart/form-data"
        described["requestBody"] = {"required": True, "content": {kind: {"schema": MODEL_BODY}}}
    return described


def ops_app(fleet: Fleet, metrics: Metrics) -> FastAPI:
    """The ops port: /metrics for Prometheus, /workers for people and programs."""
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
    """One target group in Prometheus' HTTP service discovery format."""
    return {"targets": [address], "labels": {"slug": slug}}


async def preflight(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells a browser what a page may send; whether it may read answers is told with every answer."""
    await Response(status_code=204, headers=cors.permission(scope["headers"]))(scope, receive, send)


class Plainly:
    """HEAD is GET for a page, since whoever sends the answer leaves its body out, and a slash at a path's end does not
    count, for which the framework would send clients to where `Host` says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            method, path = scope["method"], scope["path"]
            scope = {
                **scope,
                "method": "GET" if method == "HEAD" else method,
                "path": path.removesuffix("/") or "/",
            }
        await self._app(scope, receive, send)


def bare_app(title: str) -> FastAPI:
    """A FastAPI application without pages, whose errors are OpenAI objects."""
    app = FastAPI(title=title, version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Plainly)
    app.add_exception_handler(GatewayError, answer)
    app.add_exception_handler(HTTPException, answer_http)
    return app


async def answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(error.body(), error.status, headers=headers)


async def answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allow = with_head((error.headers or {}).get("Allow", ""))
    return await answer(request, to_gateway_error(request.method, request.url.path, error.status_code, allow))


def with_head(allow: str) -> str:
    """The methods of a page: HEAD is answered wherever GET is."""
    return "GET, HEAD" if "GET" in allow else allow


def to_gateway_error(method: str, path: str, status: int, allow: str) -> GatewayError:
    """What the framework's own 404 and 405 become; anything else it raises is the request's fault."""
    if status == 404:
        return RouteNotFound(f"{method} {path} is no route of this gateway")
    if status == 405:
        return MethodNotAllowed(f"{path} does not take {method}", allow)
    return InvalidRequest(f"The request was refused ({status})")


def describe_slug(fleet: Fleet, slug: str) -> Json:
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
    return {
        "address": worker.address,
        "state": worker.state,
        "reason": worker.reason,
        "in_flight": worker.in_flight,
        "waiting": worker.waiting,
        "kv_use": worker.kv_use,
        "share": round(worker.share, 2),
        "start": worker.start,
        "failed_probes": worker.health.failed_probes,
        "failed_requests": worker.health.misfortunes,
    }
