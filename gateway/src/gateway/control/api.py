"""The data port except the proxied routes: models, health and readiness, and browsers' preflight requests."""

from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from gateway.api.errors import InvalidApiKey
from gateway.config.api_keys import ApiKey
from gateway.config.key_ring import KeyRing
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

    def usable(names: Iterable[str], key: ApiKey) -> list[str]:
        return [name for name in names if key.may_use(name)]

    def describe(name: str, key: ApiKey) -> Json:
        model = models_file.model_of(name)
        aliases = usable(models_file.listed(fleet.catalog.same_as(model)), key)
        return model_list.describe_model(
            name, started_at, model, fleet.serving(model), fleet.pool(model), aliases
        )

    @app.get("/health")
    async def health() -> Json:
        """200 while this process lives, whatever the models do."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready(request: Request, response: Response) -> Json:
        """200 with at least one ready model, 503 without one or while draining. Names those that the key may use."""
        models = fleet.ready_models()
        response.status_code = 200 if models and not is_draining() else 503
        try:
            names = usable(models, keys.find(request.headers.raw))
        except InvalidApiKey:
            names = []  # for whoever watches: names are for clients
        return {"ready": response.status_code == 200, "draining": is_draining(), "models": names}

    @app.get("/v1/models")
    async def models(request: Request) -> Json:
        """The ready models that the key may use, in OpenAI's shape."""
        key = keys.find(request.headers.raw)
        names = usable(models_file.listed(fleet.ready_models()), key)
        return {"object": "list", "data": [describe(name, key) for name in names]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str, request: Request) -> Json:
        """One ready model; otherwise the error that a request for it would get."""
        key = keys.find(request.headers.raw)
        behind = models_file.model_of(model)
        if not fleet.catalog.resolve(behind) or not key.may_use(model):
            raise fleet.not_found(model, key)
        if fleet.model_state(behind) is not ModelState.READY:
            raise fleet.why_unavailable(behind, model, key)
        return describe(model, key)

    app.openapi = lambda: openapi_of(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


async def preflight(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a browser's preflight, for any path: the methods and headers that a page may send. `ClientRequest.added`
    tells on this and every answer who may read it."""
    await Response(status_code=204, headers=cors.preflight_headers(scope["headers"]))(scope, receive, send)
