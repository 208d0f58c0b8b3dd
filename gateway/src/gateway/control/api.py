"""The data port except the proxied routes: models, health and readiness, and browsers' preflight requests."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from gateway.config.api_keys import KeyRing
from gateway.config.model_options import Models
from gateway.control import model_list
from gateway.control.framework import bare_app
from gateway.control.openapi import openapi_of
from gateway.fleet.fleet import Fleet, ModelState
from gateway.server import cors

Json = dict[str, Any]


def data_app(
    fleet: Fleet, models_file: Models, keys: KeyRing, started_at: int, is_draining: Callable[[], bool]
) -> FastAPI:
    """Return the data port's application for what is not proxied. started_at: Unix seconds, told as `created`."""
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


async def preflight(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a browser's preflight request, for any path: what a page may send. Each answer says who may read it."""
    await Response(status_code=204, headers=cors.preflight_headers(scope["headers"]))(scope, receive, send)
