"""DNS rebinding: a gateway without keys is served under names of this host and listed ones, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.api_keys import hash_key
from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end

PATHS = ("/health", "/ready", "/v1/models", "/v1/models/alpha", "/openapi.json", "/nowhere")


def statuses(gateway: Gateway, host: str) -> set[int]:
    """What a page gets that reaches the gateway under the name `host`, on every kind of route."""
    named = {"host": host}
    answers = [gateway.http.get(path, headers=named) for path in PATHS]
    answers.append(gateway.http.post(CHAT, json=ask("alpha"), headers=named))
    answers.append(gateway.http.post("/v1/messages", json=ask("alpha"), headers=named))
    return {answer.status_code for answer in answers}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.1.2.3"])
def test_a_foreign_name_reaches_nothing(
    start_gateway: StartGateway, own_worker: FakeWorker, host: str
) -> None:
    """Every route answers 421 and names the setting; no worker is asked, no body waited for."""
    gateway = start_gateway(GATEWAY_ALLOWED_HOSTS="")
    own_worker.forget()
    assert statuses(gateway, host) == {421}
    error = gateway.http.post(CHAT, json=ask("alpha"), headers={"host": host}).json()["error"]
    assert error["code"] == "invalid_request"
    assert "GATEWAY_ALLOWED_HOSTS" in error["message"]
    assert own_worker.seen.empty()
    early = post(b"", "expect: 100-continue").replace(b"content-length: 0", b"content-length: 9")
    with gateway.connect(early.replace(b"host: gateway", f"host: {host}".encode())) as connection:
        assert read_to_end(connection).startswith(b"HTTP/1.1 421 Misdirected Request\r\n")


def test_this_hosts_names_and_listed_ones_are_served(start_gateway: StartGateway) -> None:
    """With any port, in any case, with a dot at the end."""
    gateway = start_gateway(GATEWAY_ALLOWED_HOSTS="node-7.example gateway")
    for host in (
        "localhost:1",
        "127.0.0.1",
        "[::1]:8000",
        "LOCALHOST.",
        "node-7.example:8000",
        "gateway:8000",
    ):
        assert statuses(gateway, host) == {200, 404}, host


def test_with_keys_names_do_not_matter(start_gateway: StartGateway, tmp_path: Path) -> None:
    """A page does not know a key."""
    (tmp_path / "keys").write_text(f"sha256:{hash_key(b'mine')}\n")
    gateway = start_gateway(GATEWAY_ALLOWED_HOSTS="", GATEWAY_API_KEYS_FILE=tmp_path / "keys")
    named = {"host": "any.example", "authorization": "Bearer mine"}
    assert gateway.http.post(CHAT, json=ask("alpha"), headers=named).status_code == 200
