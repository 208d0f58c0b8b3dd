"""Every error the gateway answers with is OpenAI's object, with a stable code under its own status."""

import json

import pytest

from gateway.api import errors
from gateway.api.errors import GatewayError

STATUSES = {
    "invalid_request": {400, 404, 405, 408, 415, 421},
    "invalid_api_key": {401},
    "model_not_found": {404},
    "request_too_large": {413, 431},
    "rate_limited": {429},
    "insufficient_quota": {429},
    "overloaded": {429, 503},
    "bad_worker_response": {502},
    "upstream_disconnected": {502},
    "model_loading": {503},
    "no_worker_available": {503},
    "worker_timeout": {504},
    "gateway_error": {500},
}


def classes(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    """Every kind of error below `root`."""
    return [kind for child in root.__subclasses__() for kind in (child, *classes(child))]


def test_every_code_has_its_statuses() -> None:
    """The codes and statuses are these and no others."""
    found: dict[str, set[int]] = {}
    for kind in classes():
        found.setdefault(kind.code, set()).add(kind.status)
    assert found == STATUSES


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The module's drawing has every class once, with its status and code."""
    drawn = [line.split("─ ")[1].split() for line in (errors.__doc__ or "").splitlines() if "─ " in line]
    assert sorted(name for name, *_ in drawn) == sorted(kind.__name__ for kind in classes())
    for name, *facts in drawn:
        kind = getattr(errors, name)
        if facts[0].isdigit():
            assert (str(kind.status), kind.code) == (facts[0], facts[1])


def test_anthropics_clients_get_a_type_for_every_fault_of_theirs() -> None:
    assert {kind.status for kind in classes() if kind.status < 500} <= errors.ANTHROPIC_TYPES.keys()


@pytest.mark.parametrize("kind", [kind for kind in classes() if kind is not errors.MethodNotAllowed])
def test_the_body_is_openais_object(kind: type[GatewayError]) -> None:
    """The body has exactly the four fields; the headers name the code, and a moment to come back where it helps."""
    error = kind("what \u4f60 and why", "model")
    expected = {"message": "what \u4f60 and why", "type": error.type, "param": "model", "code": kind.code}
    assert json.loads(error.body()) == {"error": expected}
    headers = dict(error.headers())
    assert headers[b"x-gateway-error"] == kind.code.encode()
    comes_again = kind.status in (429, 503) and kind is not errors.QuotaExceeded
    assert (b"retry-after" in headers) == comes_again


def test_a_wrong_method_says_which_are_right() -> None:
    """As HTTP asks of every 405."""
    error = errors.MethodNotAllowed("why", "GET, HEAD")
    assert (b"allow", b"GET, HEAD") in error.headers()
    assert json.loads(error.body())["error"]["message"] == "why"


def test_an_event_holds_the_same_object() -> None:
    """Inside a stream the same object is one event, closed by an empty line."""
    error = errors.WorkerDisconnected("gone")
    assert error.sse_event() == b"data: " + error.body() + b"\n\n"
