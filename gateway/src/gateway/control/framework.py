"""What the FastAPI applications here share: no documentation pages, OpenAI's error objects, HEAD where there is GET."""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import __version__
from gateway.api.errors import GatewayError, InvalidRequest, MethodNotAllowed, RouteNotFound


class PlainPaths:
    """Middleware: HEAD is handled as GET (the server leaves the body out), and a slash at a path's end is ignored.
    The framework would redirect such a path to the name in `Host`."""

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
    """Return a FastAPI application, for any port, without documentation pages; its errors are OpenAI objects."""
    app = FastAPI(title=title, version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(PlainPaths)
    app.add_exception_handler(GatewayError, answer)
    app.add_exception_handler(HTTPException, answer_http)
    return app


async def answer(request: Request, error: Exception) -> Response:
    """Return the answer for a GatewayError; FastAPI calls this when a page raises one."""
    assert isinstance(error, GatewayError)
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(error.body(), error.status, headers=headers)


async def answer_http(request: Request, error: Exception) -> Response:
    """Return the answer for an error of the framework's own, such as 404, in the gateway's form; FastAPI calls this."""
    assert isinstance(error, HTTPException)
    allow = with_head((error.headers or {}).get("Allow", ""))
    return await answer(request, to_gateway_error(request.method, request.url.path, error.status_code, allow))


def with_head(allow: str) -> str:
    """Return what `Allow` must say of a page: HEAD too wherever GET is, since `PlainPaths` handles it as GET."""
    return "GET, HEAD" if "GET" in allow else allow


def to_gateway_error(method: str, path: str, status: int, allow: str) -> GatewayError:
    """Return the framework's 404 or 405 as the gateway's error; its other errors are the request's fault (400)."""
    if status == 404:
        return RouteNotFound(f"{method} {path} is no route of this gateway")
    if status == 405:
        return MethodNotAllowed(f"{path} does not take {method}", allow)
    return InvalidRequest(f"The request was refused ({status})")
