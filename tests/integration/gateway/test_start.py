"""What the operator has got wrong ends the start with one line that says what to do, and an exit code of its kind."""

from __future__ import annotations

import socket

import pytest

from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import Gateway, Site, run_to_its_end


def refusal(site: Site, **settings: object) -> tuple[int, str]:
    """Exit code and the one line on standard error; nothing is logged."""
    run = run_to_its_end(site, **settings)
    assert run.stdout == ""
    assert run.stderr.startswith("gateway: ")
    assert run.stderr.count("\n") == 1
    return run.returncode, run.stderr.strip()


@pytest.mark.parametrize("variable", ["GATEWAY_PORT", "GATEWAY_OPS_PORT"])
def test_a_port_in_use(site: Site, variable: str) -> None:
    """Exit code 3, naming the port and the variable to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refusal(site, **{variable: port})
    assert code == 3
    assert f"127.0.0.1:{port}" in line
    assert variable in line


BAD_SETTINGS = {
    "GATEWAY_PORT": ("http", "GATEWAY_PORT='http'"),
    "GATEWAY_INTERVAL_S": ("0", "GATEWAY_INTERVAL_S"),
    "GATEWAY_BIND": ("0.0.0.0", "GATEWAY_API_KEYS_FILE"),
    "GATEWAY_LISTEN": ("192.0.2.1", "192.0.2.1"),
    "GATEWAY_CARDS_DIR": ("/nowhere", "GATEWAY_CARDS_DIR=/nowhere"),
    "GATEWAY_API_KEYS_FILE": ("/nowhere", "GATEWAY_API_KEYS_FILE=/nowhere"),
    "GATEWAY_WORKERS_FILE": ("/nowhere", "GATEWAY_WORKERS_FILE=/nowhere"),
}


@pytest.mark.parametrize(
    ("variable", "value", "named"), [(name, *rest) for name, rest in BAD_SETTINGS.items()]
)
def test_a_wrong_setting(site: Site, variable: str, value: str, named: str) -> None:
    """Exit code 2, naming the setting."""
    code, line = refusal(site, **{variable: value})
    assert code == 2
    assert named in line


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("docker/alpha/model.env", b"WEIGHTS_REPO=o/a\n", "SERVED_MODEL_NAMES is missing"),
        ("docker/alpha/model.env", b'WEIGHTS_REPO="o/a\n', "model.env:1"),
        ("docker/alpha/model.env", b"\xff\xfe", "model.env cannot be read"),
        ("docker/alpha/card.yaml", b"slug: [a\nb: {", "card.yaml is not valid YAML"),
        ("docker/alpha/card.yaml", b"slug: beta\n", "'alpha'"),
        ("workers", b"beta http://127.0.0.1:1\n", "workers:1"),
        ("workers", b"alpha http://127.0.0.1:99999\n", "workers:1"),
    ],
)
def test_a_wrong_file(site: Site, file: str, content: bytes, named: str) -> None:
    """Exit code 2, naming the file and what is wrong in it."""
    (site.cards.parent / file).write_bytes(content)
    code, line = refusal(site)
    assert code == 2
    assert named in line


def test_empty_settings_count_as_unset(start_gateway: StartGateway) -> None:
    """Compose hands down settings nobody made as empty strings: they mean the defaults."""
    gateway = start_gateway(GATEWAY_API_KEYS_FILE="", GATEWAY_OPEN="", GATEWAY_LISTEN="", GATEWAY_DRAIN_S="")
    gateway.terminate()
    assert gateway.end() == (0, "")


def test_the_gateway_starts_before_any_model(site: Site) -> None:
    """Without a worker the gateway serves: it lives, is not ready, and lists nothing."""
    gateway = Gateway(site)
    assert gateway.http.get("/health").status_code == 200
    ready = gateway.http.get("/ready")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "draining": False, "models": []})
    gateway.terminate()
    assert gateway.end() == (0, "")
