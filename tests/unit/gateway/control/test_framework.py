"""How the control side words what the framework refuses."""

import pytest

from gateway.control.framework import to_gateway_error


@pytest.mark.parametrize(("status", "expected"), [(404, 404), (405, 405), (400, 400), (418, 400)])
def test_the_frameworks_refusals_become_ours(status: int, expected: int) -> None:
    """404 and 405 keep their status and say method and path; all else is the request's fault."""
    error = to_gateway_error("PUT", "/v1/x", status, "GET, HEAD")
    assert (error.status, error.code) == (expected, "invalid_request")
    assert ("/v1/x" in error.message) == (status in (404, 405))
    assert ((b"allow", b"GET, HEAD") in error.headers()) == (status == 405)
