"""Admit a request for a proxied route when its head has come: give it a handler, or note why it is refused."""

from gateway.api.errors import GatewayError, MethodNotAllowed
from gateway.api.routes import Route
from gateway.body.content_coding import coding_of
from gateway.config.api_keys import KeyRing
from gateway.proxy.context import Context
from gateway.proxy.handler import ProxyHandler
from gateway.server.request import ClientRequest
from gateway.server.request_id import request_ids


class Admission:
    """Prepares every request for a proxied route; one per process. `Gateway.listener` in app.py calls it."""

    def __init__(self, context: Context, keys: KeyRing) -> None:
        self._context = context
        self._keys = keys

    def prepare(self, request: ClientRequest, route: Route) -> None:
        """Set the request's size limit and handler, and `refusal` if method, key or content coding are not accepted.
        Called when its head has come; a refused one has a handler too, which answers the refusal."""
        request.limit = self._context.settings.max_body_bytes
        ids = request_ids(request.headers, b"%032x" % self._context.random.getrandbits(128))
        request.handler = ProxyHandler(self._context, request, route, ids)
        try:
            check_method(request, route)
            self._keys.check(request.headers)
            coding_of(request.headers)  # only for what it raises; the handler asks again
        except GatewayError as error:
            request.refusal = error.with_traceback(None)  # a traceback would make a reference cycle


def check_method(request: ClientRequest, route: Route) -> None:
    """Raise MethodNotAllowed if the route does not take the request's method: each route takes one."""
    if request.method != route.method:
        path, given = request.path.decode("latin-1"), request.method.decode("latin-1")
        raise MethodNotAllowed(f"{path} takes {route.method.decode()}, not {given}", route.method.decode())
