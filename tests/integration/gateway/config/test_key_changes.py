"""Keys while requests wait, keys that may use less than a worker serves, and two keys in one request."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest

from gateway.config.api_keys import hash_key
from tests.fake_worker import WAIT_S, FakeWorker
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import CHAT, Gateway, Site, ask, post, read_to_end, wait_until

STATES = ("ready", "absent", "starting", "misnamed", "gone", "full")
ALIASES = "aliases:\n" + "".join(
    f"  my-{state}: {{model: real-{state}, force: {{temperature: 0}}}}\n" for state in STATES
)
SPEECH = "/v1/audio/transcriptions"


def entry(name: str, more: str = "") -> str:
    """An entry whose key is `sk-` and its name."""
    return f"  {name}: {{sha256: [{hash_key(b'sk-' + name.encode())}]{more}}}\n"


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


def status(gateway: Gateway, name: str) -> int:
    return gateway.http.get("/v1/models/alpha", headers=bearer(name)).status_code


# changes while a request waits


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A key file with two keys for `alpha`."""
    path = tmp_path / "keys"
    path.write_text("keys:\n" + entry("stays") + entry("waits"))
    return path


@pytest.fixture
def gateway(start_gateway: StartGateway, keys: Path, tmp_path: Path) -> Gateway:
    """A gateway whose only worker takes one request at a time."""
    models = tmp_path / "models.yaml"
    models.write_text("defaults: {in_flight_per_worker: 1, queue: {most: 9, wait_s: 600}}\n")
    return start_gateway(GATEWAY_API_KEYS_FILE=keys, GATEWAY_MODELS_FILE=models, GATEWAY_INTERVAL_S=60)


CHANGES = {  # of the key that waits: the entry, and what its request gets
    "": 401,
    entry("waits", ", revoked: 2026-01-01"): 401,
    entry("waits", ", expires: 2026-01-01"): 401,
    entry("waits", ", models: [beta]"): 404,
    entry("waits", ", priority: bulk"): 200,
}


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest, site: Site) -> tuple[str, int]:
    """What becomes of a key, and what a request that waits then gets."""
    site.declare("beta", "beta")
    return request.param, CHANGES[request.param]


def apply(gateway: Gateway, keys: Path, changed: str) -> None:
    """Changes the file, and waits until the gateway has read it."""
    keys.write_text("keys:\n" + entry("stays") + changed + entry("new"))
    wait_until(lambda: status(gateway, "new") == 200, "the changed file to count")


def test_a_queued_request_is_sent_only_if_its_key_still_counts(
    change: tuple[str, int], gateway: Gateway, own_worker: FakeWorker, keys: Path
) -> None:
    """The request that runs goes on, whatever becomes of its key."""
    changed, expected = change
    answers: list[httpx.Response] = []

    def wait() -> None:
        with gateway.client() as client:
            answers.append(client.post(CHAT, json=ask("alpha"), headers=bearer("waits"), timeout=WAIT_S))

    with gateway.http.stream(
        "POST", CHAT, json=ask("alpha", "sse", hold=1), headers=bearer("waits")
    ) as stream:
        held = own_worker.next()
        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(lambda: gateway.metric("gateway_queue_length", model="alpha") == 1, "the second to wait")
        apply(gateway, keys, changed)
        held.go_on()
        assert b"[DONE]" in stream.read()
        waiting.join(WAIT_S)
    assert [answer.status_code for answer in answers] == [expected]
    assert own_worker.seen.empty() is (expected != 200)
    assert gateway.http.post(CHAT, json=ask("alpha"), headers=bearer("stays")).status_code == 200


def test_a_request_whose_body_comes_late_is_sent_only_if_its_key_still_counts(
    change: tuple[str, int], gateway: Gateway, own_worker: FakeWorker, keys: Path
) -> None:
    """Its head was accepted; the body may take minutes."""
    changed, expected = change
    request = post(json.dumps(ask("alpha")).encode(), "authorization: Bearer sk-waits", "connection: close")
    with gateway.connect(request[:-3]) as connection:
        wait_until(lambda: status(gateway, "waits") == 200, "the head to be read")
        apply(gateway, keys, changed)
        connection.sendall(request[-3:])
        assert read_to_end(connection).startswith(b"HTTP/1.1 %d " % expected)
    assert own_worker.seen.empty() is (expected != 200)


# two keys


@pytest.mark.parametrize(
    ("bearer_name", "other", "expected"),
    [("stays", "waits", 401), ("stays", "stays", 200), ("stays", "foreign", 200), ("foreign", "waits", 200)],
)
def test_two_keys_of_different_names_are_refused(
    gateway: Gateway, bearer_name: str, other: str, expected: int
) -> None:
    """It could not be told whose rights and limits count. One beside it that is unknown may be for somebody else."""
    headers = bearer(bearer_name) | {"x-api-key": f"sk-{other}"}
    for answer in (
        gateway.http.post(CHAT, json=ask("alpha"), headers=headers),
        gateway.http.get("/v1/models/alpha", headers=headers),
    ):
        assert answer.status_code == expected
        assert ("send one" in answer.text) is (expected == 401)


# keys that may use only aliases


@pytest.fixture
def aliased(
    site: Site, start_gateway: StartGateway, start_worker: StartWorker, own_worker: FakeWorker, tmp_path: Path
) -> Gateway:
    """A gateway with a key for aliases alone, of models in every state. Slugs are `slug-` and the state."""
    dead = start_worker("real-gone")
    for state in STATES:
        site.declare(
            f"slug-{state}", f"real-{state}", serving="{images: {per_prompt: 1}}" if state == "ready" else ""
        )
    site.attach({
        "alpha": [own_worker], "slug-ready": [start_worker("real-ready")], "slug-gone": [dead],
        "slug-starting": [start_worker("real-starting", health=503)], "slug-full": [start_worker("real-full")],
        "slug-misnamed": [start_worker("somebody-else")],
    })  # fmt: skip
    mine = ", ".join(f"my-{state}" for state in STATES)
    (tmp_path / "keys").write_text("keys:\n" + entry("aliases", f", models: [{mine}]"))
    models = "models: {real-full: {in_flight_per_worker: 1, queue: {most: 0}}}\n"
    (tmp_path / "models.yaml").write_text(ALIASES + models)
    gateway = start_gateway(
        GATEWAY_API_KEYS_FILE=tmp_path / "keys", GATEWAY_MODELS_FILE=tmp_path / "models.yaml",
        GATEWAY_INTERVAL_S=60,
    )  # fmt: skip
    for state in ("ready", "gone", "full"):
        gateway.wait_for(f"slug-{state}", "ready")
    wait_until(lambda: gateway.slug("slug-misnamed")["workers"][0]["state"] == "misnamed", "its first probe")
    dead.kill()
    return gateway


@pytest.mark.parametrize(
    ("state", "statuses"),
    [("absent", {404}), ("starting", {503}), ("misnamed", {503}), ("gone", {502, 503}), ("full", {429})],
)
def test_an_error_names_the_alias_that_was_asked_for(
    aliased: Gateway, state: str, statuses: set[int], start_worker: StartWorker
) -> None:
    """And neither the model behind it nor its slug, which its holder has no right to know."""
    own = bearer("aliases")
    asked = ask(f"my-{state}")
    with aliased.client() as client:
        if state == "full":
            with client.stream("POST", CHAT, json=ask("my-full", "sse", hold=1), headers=own):
                answers = [aliased.http.post(CHAT, json=asked, headers=own)]
        else:
            answers = [aliased.http.post(CHAT, json=asked, headers=own)]
            answers.append(aliased.http.get(f"/v1/models/my-{state}", headers=own))
            answers.append(aliased.http.post(SPEECH, files={"model": (None, f"my-{state}")}, headers=own))
    for answer in answers:
        if state == "gone" and answer.status_code == 200:  # /v1/models, before its workers' next probe
            continue
        assert answer.status_code in statuses
        assert "real-" not in answer.text
        assert "slug-" not in answer.text
        assert state == "gone" or f"my-{state}" in answer.json()["error"]["message"]


def test_a_form_may_name_an_alias(aliased: Gateway) -> None:
    """The worker gets the model's own name and what the alias forces; the file goes along as it is."""
    sound = b"RIFF" + b"\r\n--x\r\n" * 1000
    files = {"file": ("a.wav", sound), "model": (None, "my-ready"), "temperature": (None, "1")}
    answer = aliased.http.post(SPEECH, files=files, headers=bearer("aliases"))
    assert answer.status_code == 200
    assert aliased.logged(answer)["model"] == "real-ready"


# two names of one worker


@pytest.fixture
def two_names(site: Site, start_worker: StartWorker) -> FakeWorker:
    """A worker with two names."""
    site.declare("alpha", "alpha", "alpha-long")
    worker = start_worker("alpha", "alpha-long")
    worker.responses = {"resp_kept"}
    site.attach({"alpha": [worker]})
    return worker


def test_a_stored_response_of_another_name_of_the_worker_does_not_exist(
    start_gateway: StartGateway, two_names: FakeWorker, tmp_path: Path
) -> None:
    """A key for one name reaches no response that the other made, to read, to end, or to go on from."""
    (tmp_path / "keys").write_text(
        "keys:\n"
        + entry("all")
        + entry("short", ", models: [alpha]")
        + entry("long", ", models: [alpha-long]")
    )
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=tmp_path / "keys")
    gateway.wait_for("alpha", "ready")
    body = {
        "model": "alpha-long",
        "input": "x",
        "script": {"do": "pieces", "pieces": ['{"id":"resp_kept"}'], "json": True},
    }
    assert gateway.http.post("/v1/responses", json=body, headers=bearer("long")).status_code == 200

    def reach(key: str, name: str) -> list[httpx.Response]:
        own, follow = bearer(key), {"model": name, "input": "x", "previous_response_id": "resp_kept"}
        return [
            gateway.http.get("/v1/responses/resp_kept", headers=own),
            gateway.http.post("/v1/responses/resp_kept/cancel", headers=own),
            gateway.http.post("/v1/responses", json=follow, headers=own),
        ]

    two_names.forget()
    told = reach("short", "alpha")
    assert [answer.status_code for answer in told] == [404] * 3
    assert two_names.seen.empty()
    unknown = gateway.http.get("/v1/responses/resp_nope", headers=bearer("short"))
    assert told[0].text == unknown.text.replace("resp_nope", "resp_kept")
    for key, name in {"long": "alpha-long", "all": "alpha"}.items():
        answers = reach(key, name)
        assert [answer.status_code for answer in answers] == [200] * 3
        assert gateway.logged(answers[0])["model"] == "alpha-long"


def test_a_response_of_an_unknown_maker_counts_as_of_a_name_that_the_key_may_use(
    start_gateway: StartGateway, two_names: FakeWorker, tmp_path: Path
) -> None:
    """In log and metrics, so that no holder of a key sees or pays for another name."""
    (tmp_path / "keys").write_text("keys:\n" + entry("long", ", models: [alpha-long]"))
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=tmp_path / "keys")
    gateway.wait_for("alpha", "ready")
    answer = gateway.http.get("/v1/responses/resp_kept", headers=bearer("long"))
    assert answer.status_code == 200
    assert gateway.logged(answer)["model"] == "alpha-long"
