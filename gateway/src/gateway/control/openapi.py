"""The data port's OpenAPI document, at /openapi.json."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.api.routes import TABLE, Kind, Route

Json = dict[str, Any]
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


def openapi_of(app: FastAPI) -> Json:
    """Return the data port's OpenAPI document, made once: FastAPI's pages and every row of the route table."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for route in TABLE:
            methods = document["paths"].setdefault(route.path.decode(), {})
            methods[route.method.decode().lower()] = describe_route(route)
        app.openapi_schema = document
    return app.openapi_schema


def describe_route(route: Route) -> Json:
    """Return a row of the route table in OpenAPI's form. Only `model` is described; the worker checks the rest."""
    described: Json = {"operationId": route.name, "summary": route.summary, "responses": RESPONSES}
    if route.kind is Kind.STORED:
        described["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    else:
        kind = "application/json" if route.kind is Kind.JSON else "multipart/form-data"
        described["requestBody"] = {"required": True, "content": {kind: {"schema": MODEL_BODY}}}
    return described
