"""Admit a request when its head has come: give it the handler that answers it, or note why it is refused."""

from gateway.api.errors import GatewayError, MethodNotAllowed
from gateway.api.routes import Route
from gateway.body.content_coding import coding_of
from gateway.config.key_ring import KeyRing
from gateway.proxy.context import Context
from gateway.proxy.handler import ProxyHandler
from gateway.server.asgi_bridge import BODY_BYTES, Application, AsgiHandler
from gateway.server.cors import Cors
from gateway.server.host_check import HostCheck
from gateway.server.request import ClientRequest
from gateway.server.request_id import request_ids


class Admission:
    """Prepares every request of the data port; one per process. local: answers what goes to no worker; preflight:
    answers a browser's preflight."""

    def __init__(
        self, context: Context, keys: KeyRing, cors: Cors, host_check: HostCheck,
        local: Application, preflight: Application,
    ) -> None:  # fmt: skip
        self._context = context
        self._keys = keys
        self._cors = cors
        self._host_check = host_check
        self._local = local
        self._preflight = preflight

    def prepare(self, request: ClientRequest) -> None:
        """Set what the head decides: the answer's CORS headers, the size limit, the handler, and `refusal` if the
        request is not accepted. `server` calls this when the head has come; the handler answers a refusal too."""
        request.added = self._cors.fields(request.headers)
        if self._cors.is_preflight(request.method, request.headers):
            self._answer_here(request, self._preflight)
        elif request.route is not None:
            self._proxy(request, request.route)
        else:
            self._answer_here(request, self._local)
        try:
            self._host_check.check(request.headers)
        except GatewayError as error:
            refuse(request, error)  # over any other refusal: a web page of another name must learn nothing

    def _answer_here(self, request: ClientRequest, application: Application) -> None:
        """Give the request a handler that asks one of the gateway's own applications, whose bodies are small."""
        request.limit = BODY_BYTES
        request.handler = AsgiHandler(application, request, self._context.upstream.loop)

    def _proxy(self, request: ClientRequest, route: Route) -> None:
        """Give the request a handler that sends it to a worker, or refuse it by method, key or content coding."""
        request.limit = self._context.settings.max_body_bytes
        ids = request_ids(request.headers, b"%032x" % self._context.random.getrandbits(128))
        request.handler = handler = ProxyHandler(self._context, request, route, ids)
        if self._context.audit is not None:
            handler.client = request.peer()  # which nobody can tell any more once the client has left
        try:
            check_method(request, route)
            handler.key = self._keys.find(request.headers)
            coding_of(request.headers)  # only for what it raises; the handler asks again
        except GatewayError as error:
            refuse(request, error)


def refuse(request: ClientRequest, error: GatewayError) -> None:
    """Have `error` answered instead of starting the handler."""
    request.refusal = error.with_traceback(None)  # a traceback would make a reference cycle


def check_method(request: ClientRequest, route: Route) -> None:
    """Raise MethodNotAllowed if the route does not take the request's method: each route takes one."""
    if request.method != route.method:
        path, given = request.path.decode("latin-1"), request.method.decode("latin-1")
        raise MethodNotAllowed(f"{path} takes {route.method.decode()}, not {given}", route.method.decode())
