"""Secrets that are planted wherever one may be: none is in a log, a metric, an error, a page, or a kept file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from gateway.config.api_keys import hash_key
from tests.certificates import Authority
from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import (
    CHAT,
    Gateway,
    Site,
    ask,
    read_to_end,
    run_to_its_end,
    wait_until,
)

NEW, OLD, UNKNOWN = "sk-octet-" + "Q7" * 21 + "Q", "sk-live-0Ld-F0rm-k3y", "sk-octet-" + "W9" * 21 + "W"
ANSWER = "the answer is f0rty-two"
PASSPHRASE = "p4ss-phrase-of-the-key"
PLANTED = {
    "an API key": NEW,
    "an API key of the old form": OLD,
    "an API key that is unknown": UNKNOWN,
    "the digest of a key": hash_key(NEW.encode()),
    "the digest of another": hash_key(OLD.encode()),
    "the password of a proxy": "pr0xy-p4ssw0rd",
    "a hub's token": "hf_T0k3nOfTheHub",
    "a prompt": "tell nobody about the m3rger",
    "an answer": ANSWER,
    "a header's value": "c00kie-of-somebody",
    "the value of a query": "qu3ry-value",
    "a file's content": "aud1o-in-a-form",
}
BEARER = {"authorization": f"Bearer {NEW}"}


class Output:
    """All that a gateway has shown so far, under the name of where it was."""

    def __init__(self, gateway: Gateway, state: Path) -> None:
        self._gateway = gateway
        self._state = state
        self.answers: list[str] = []

    def shown(self) -> Iterator[tuple[str, str]]:
        yield "log", b"".join(self._gateway.raw_log).decode()
        for page in ("/metrics", "/workers", "/targets/gateways", "/targets/workers", "/nothing"):
            yield page, self._gateway.ops.get(page).text
        for at, answer in enumerate(self.answers):
            yield f"error {at}", answer
        for path in (one for one in self._state.rglob("*") if one.is_file()):
            yield str(path.relative_to(self._state)), path.read_bytes().decode(errors="replace")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A key file, a certificate, an audit log; and secrets in the environment, as an operator's shell may have them."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PLANTED['the password of a proxy']}@proxy.example:3128")
    monkeypatch.setenv("MODEL_CACHE_TOKEN", PLANTED["a hub's token"])
    keys = {"new": NEW, "old": OLD}
    entries = {name: {"sha256": [hash_key(key.encode())]} for name, key in keys.items()}
    (tmp_path / "keys").write_text(yaml.safe_dump({"keys": entries}))
    cert, key = Authority(tmp_path).issue()
    (tmp_path / "cert.pem").write_bytes(cert)
    (tmp_path / "key.pem").write_bytes(key)
    return {
        "GATEWAY_API_KEYS_FILE": tmp_path / "keys",
        "GATEWAY_TLS_CERT_FILE": tmp_path / "cert.pem",
        "GATEWAY_TLS_KEY_FILE": tmp_path / "key.pem",
        "GATEWAY_AUDIT": "on",
        "GATEWAY_STATE_DIR": tmp_path / "state",
    }


def found_in(shown: Iterator[tuple[str, str]], secrets: dict[str, str]) -> list[tuple[str, str]]:
    """Which secret is where."""
    return [(what, where) for where, text in shown for what, secret in secrets.items() if secret in text]


def send_all(gateway: Gateway, output: Output) -> None:
    """Every way to end a request, with secrets in it; keeps what the gateway itself answered."""
    prompt = {"messages": [{"role": "user", "content": PLANTED["a prompt"]}]}
    event = f'data: {{"id": "x", "choices": [{{"delta": {{"content": "{ANSWER}"}}}}]}}\n\n'
    answer = {"do": "pieces", "pieces": [event, "data: [DONE]\n\n"]}
    own = {**BEARER, "cookie": PLANTED["a header's value"], "x-own": PLANTED["a header's value"]}
    query = f"{CHAT}?api_key={PLANTED['the value of a query']}"
    good = {**ask("alpha"), **prompt}
    gateway.http.post(query, json=good | {"script": answer, "stream": True}, headers=own)
    gateway.http.post(CHAT, json=good, headers={"x-api-key": OLD})
    form = {"model": (None, "alpha"), "file": ("a.wav", PLANTED["a file's content"].encode())}
    gateway.http.post("/v1/audio/transcriptions", files=form, headers=own)
    refused = [
        gateway.http.post(CHAT, json=good, headers={**own, "authorization": f"Bearer {UNKNOWN}"}),
        gateway.http.post(CHAT, json=good, headers={"authorization": NEW}),
        gateway.http.post(CHAT, json=good, headers={"authorization": f"Bearer {NEW[:-1]}"}),
        gateway.http.post(CHAT, json=good, headers={"authorization": f"Bearer {hash_key(NEW.encode())}"}),
        gateway.http.post(query, json=good | {"model": "nobody"}, headers=own),
        gateway.http.post(CHAT, content=json.dumps(good)[:-1], headers=own),
        gateway.http.post(CHAT, json=good | {"n": PLANTED["a prompt"]}, headers=own),
        gateway.http.post(CHAT, json=good | {"chat_template": PLANTED["a prompt"]}, headers=own),
        gateway.http.get(query, headers=own),
        gateway.http.get(f"/v1/none?key={NEW}", headers=own),
        gateway.http.get("/v1/models", headers={"authorization": f"Bearer {UNKNOWN}"}),
        gateway.http.post(CHAT, json=good | {"script": {"do": "garbage"}}, headers=own),
    ]
    output.answers += [answer.text + str(answer.headers) for answer in refused]
    for line in (
        f"authorization : Bearer {NEW}",
        f"authorization: Bearer {NEW}\x01",
        f"x{NEW}",
        "x: " + NEW * 2000,
    ):
        with gateway.connect(f"POST {CHAT} HTTP/1.1\r\nhost: a\r\n{line}\r\n\r\n".encode()) as connection:
            output.answers.append(connection.recv(65536).decode())
    for line in (f"GET /{NEW} {NEW}", f"GET http://me:{NEW}@host/ HTTP/1.1\r\nhost: a", f"{NEW}"):
        with gateway.connect(f"{line}\r\n\r\n".encode()) as connection:
            output.answers.append(read_to_end(connection).decode())


def break_files(gateway: Gateway, folder: Path) -> None:
    """Puts secrets where they must not stand, into files that are read again; each is told."""
    for text in (
        f"{NEW} somebody\n",
        f"keys:\n  {NEW}: {{}}\n",
        f"keys: {{a: {{sha256: [{NEW}]}}}}\n",
        f"keys: [{OLD}",
    ):
        before = len(gateway.events("keys_unreadable"))
        (folder / "keys").write_text(text)
        gateway.several(before + 1, "keys_unreadable")
    (folder / "key.pem").write_bytes(encrypted((folder / "key.pem").read_bytes()))
    gateway.event("certificate_refused")


def encrypted(pem: bytes) -> bytes:
    """The key under a passphrase."""
    key = serialization.load_pem_private_key(pem, None)
    locked = serialization.BestAvailableEncryption(PASSPHRASE.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def test_no_secret_is_shown_anywhere(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path, own_worker: FakeWorker
) -> None:
    """Through good requests, refused ones, heads that are none, and files that have become wrong."""
    own_worker.forget()
    key = (tmp_path / "key.pem").read_text()
    gateway = start_gateway(ca=tmp_path / "ca.pem", **settings, GATEWAY_FIELD_POLICY="permissive")
    output = Output(gateway, tmp_path / "state")
    send_all(gateway, output)
    sent = [own_worker.next() for _ in range(3)]
    lines = [value for seen in sent for name, value in seen.headers]
    break_files(gateway, tmp_path)
    wait_until(lambda: len(gateway.events("request")) >= 12, "the lines of the requests")
    secrets = {**PLANTED, "the certificate's key": key.splitlines()[1], "its passphrase": PASSPHRASE}
    shown = list(output.shown())
    assert {"log", "/metrics", "/workers"} <= {where for where, _ in shown}
    assert [where for where, _ in shown if where.startswith("audit/")]
    assert [where for where, _ in shown if where.startswith("usage.sqlite3")]
    assert found_in(iter(shown), secrets) == []
    assert [line for line in lines if NEW in line or OLD in line or PLANTED["a header's value"] in line] == []
    assert [seen.target for seen in sent if PLANTED["the value of a query"] in seen.target] == []


STARTS = {
    "a key in the key file": ("GATEWAY_API_KEYS_FILE", f"{NEW} somebody\n"),
    "a key as a name": ("GATEWAY_API_KEYS_FILE", f"keys: {{{NEW}: {{sha256: [{'a' * 64}]}}}}\n"),
    "a digest that stands twice": (
        "GATEWAY_API_KEYS_FILE",
        f"keys: {{a: {{sha256: [{hash_key(NEW.encode())}]}}, b: {{sha256: [{hash_key(NEW.encode())}]}}}}\n",
    ),
    "a key in the models file": ("GATEWAY_MODELS_FILE", f"{NEW}: 1\n"),
    "a key in the workers file": ("GATEWAY_WORKERS_FILE", f"alpha http://me:{NEW}@worker:8000\n"),
}


@pytest.mark.parametrize("case", STARTS)
def test_no_error_of_the_start_shows_a_secret(
    site: Site, settings: dict[str, object], tmp_path: Path, case: str
) -> None:
    """A secret that stands where it must not is not repeated to whoever reads the log."""
    variable, text = STARTS[case]
    (tmp_path / "wrong").write_text(text)
    done = run_to_its_end(site, **settings | {variable: tmp_path / "wrong"})
    assert done.returncode == 2
    assert str(tmp_path / "wrong") in done.stderr
    assert found_in(iter([("error", done.stderr + done.stdout)]), PLANTED) == []


@pytest.mark.parametrize("variable", ["GATEWAY_API_KEYS_FILE", "GATEWAY_TLS_KEY_FILE", "GATEWAY_PORT"])
def test_a_secret_in_place_of_a_path_is_not_repeated(
    site: Site, settings: dict[str, object], tmp_path: Path, variable: str
) -> None:
    """The likeliest mistake: the key itself, where its file is asked for."""
    done = run_to_its_end(site, **settings | {variable: NEW})
    assert done.returncode == 2
    assert variable in done.stderr
    assert NEW not in done.stderr + done.stdout


def test_an_encrypted_key_is_refused_without_its_passphrase(
    site: Site, settings: dict[str, object], tmp_path: Path
) -> None:
    """Nor is anything of the key in the error."""
    locked = encrypted((tmp_path / "key.pem").read_bytes())
    (tmp_path / "key.pem").write_bytes(locked)
    done = run_to_its_end(site, **settings)
    assert done.returncode == 2
    assert locked.decode().splitlines()[1] not in done.stderr
