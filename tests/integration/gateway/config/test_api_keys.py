"""With a key file only its keys are let in, and a change of the file counts within a round."""

from __future__ import annotations

import time
from pathlib import Path

import openai
import pytest

from gateway.config.api_keys import hash_key
from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, wait_until

MINE, OTHER = "sk-octet-mine", "sk-octet-other"


def line(key: str) -> str:
    return f"sha256:{hash_key(key.encode())} somebody\n"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A key file with both keys."""
    path = tmp_path / "keys"
    path.write_text("# keys\n" + line(MINE) + line(OTHER))
    return path


def status(gateway: Gateway, authorization: str | None) -> int:
    """The status of a chat with this Authorization header."""
    headers = {} if authorization is None else {"authorization": authorization}
    return gateway.http.post(CHAT, json=ask("alpha"), headers=headers).status_code


def test_only_keys_of_the_file_are_let_in(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """A listed key passes; none, a wrong one, another scheme or the hash itself get 401, and no worker is asked."""
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    assert status(gateway, f"Bearer {MINE}") == 200
    own_worker.forget()
    digest = hash_key(MINE.encode())
    wrong = [None, "", "Bearer", f"Bearer {MINE}x", f"Basic {MINE}", MINE, f"Bearer {digest}"]
    assert [status(gateway, one) for one in wrong] == [401] * len(wrong)
    assert own_worker.seen.empty()
    answer = gateway.http.post(CHAT, json=ask("alpha"))
    assert (answer.json()["error"]["code"], answer.headers["x-gateway-error"]) == ("invalid_api_key",) * 2


def test_models_need_a_key_and_health_does_not(start_gateway: StartGateway, keys: Path) -> None:
    """/v1/models is for clients with a key; /health and /ready are for whoever watches."""
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    expected = {"/v1/models": 401, "/v1/models/alpha": 401, "/health": 200, "/ready": 200}
    assert {path: gateway.http.get(path).status_code for path in expected} == expected
    with pytest.raises(openai.AuthenticationError):
        gateway.openai.models.list()
    assert gateway.openai.with_options(api_key=MINE).models.list().data[0].id == "alpha"


def test_a_revoked_key_is_refused_without_a_restart(start_gateway: StartGateway, keys: Path) -> None:
    """A key whose line is gone stops working within a round; the others go on."""
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    assert status(gateway, f"Bearer {OTHER}") == 200
    keys.write_text(line(MINE))
    wait_until(lambda: status(gateway, f"Bearer {OTHER}") == 401, "the key to be refused", wait_s=1)
    assert status(gateway, f"Bearer {MINE}") == 200


def test_a_key_file_that_turns_bad_changes_nothing(start_gateway: StartGateway, keys: Path) -> None:
    """A spoilt key file is logged as an error and the keys read before stay; mended, it counts again."""
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    keys.write_text("sha256:short\n")
    assert "keys:1 is not" in gateway.event("keys_unreadable")["message"]
    assert status(gateway, f"Bearer {MINE}") == 200
    time.sleep(1)  # ten looks
    assert len(gateway.events("keys_unreadable")) == 1
    keys.write_text(line(OTHER))
    wait_until(lambda: status(gateway, f"Bearer {MINE}") == 401, "the mended file to count")


def test_no_key_is_ever_told(start_gateway: StartGateway, own_worker: FakeWorker, keys: Path) -> None:
    """Neither the log nor a worker nor an answer carries a key or its hash."""
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    status(gateway, f"Bearer {MINE}")
    answer = gateway.http.post(CHAT, json=ask("alpha"), headers={"authorization": "Bearer sk-octet-wrong"})
    gateway.logged(answer)
    told = b"".join(gateway.raw_log) + answer.content + repr(own_worker.next().headers).encode()
    for secret in (MINE, OTHER, "sk-octet-wrong", hash_key(MINE.encode())):
        assert secret.encode() not in told


def test_without_a_file_any_key_is_accepted(gateway: Gateway) -> None:
    """On loopback without a key file a client may send what it likes."""
    assert [status(gateway, one) for one in (None, "Bearer x", "Basic eA==")] == [200] * 3
    assert gateway.http.post(CHAT, json=ask("alpha")).content == COMPLETION


def test_a_key_as_anthropics_clients_send_it(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """`x-api-key` lets in as well, and does not go on to the worker; a wrong one is told in Anthropic's words."""
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    answer = gateway.http.post("/v1/messages", json=ask("alpha"), headers={"x-api-key": MINE})
    assert answer.status_code == 200
    assert "x-api-key" not in dict(own_worker.next().headers)
    refused = gateway.http.post("/v1/messages", json=ask("alpha"), headers={"x-api-key": "wrong"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    assert own_worker.seen.empty()


RIGHT = [
    {"authorization": "Bearer foreign", "x-api-key": MINE},
    {"authorization": "Bearer", "x-api-key": MINE},
    {"authorization": "Basic eA==", "x-api-key": MINE},
    {"authorization": f"Bearer {MINE}", "x-api-key": "foreign"},
    {"authorization": f"bearer  {MINE}"},
]
WRONG = [
    {"authorization": "Bearer foreign", "x-api-key": "foreign"},
    {"authorization": "Bearer", "x-api-key": ""},
]


def test_one_right_key_is_enough(start_gateway: StartGateway, keys: Path) -> None:
    """A foreign or an empty key beside it does not count, whichever header it came in."""
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    for sets, status in ((RIGHT, 200), (WRONG, 401)):
        for headers in sets:
            for path in (CHAT, "/v1/messages"):
                assert gateway.http.post(path, json=ask("alpha"), headers=headers).status_code == status
            assert gateway.http.get("/v1/models", headers=headers).status_code == status
    repeated = [("authorization", "Bearer foreign"), ("authorization", f"Bearer {MINE}")]
    assert gateway.http.post(CHAT, json=ask("alpha"), headers=repeated).status_code == 200
