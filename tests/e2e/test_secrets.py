"""Secrets that an operator gives to the stack, in files: Docker and `make report` show none of them."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.api_keys import hash_key
from tests.certificates import Authority
from tests.e2e.conftest import SLUG
from tests.e2e.stack import PROJECT, ROOT, Stack, compose_files

KEY = "sk-octet-" + "Q7" * 21 + "Q"
OPTIONAL = ("alertmanager", "serve-weights")
TEXTS = {  # what stands in the file of each setting, and in it the secret
    "GATEWAY_API_KEYS_FILE": (f"sha256:{hash_key(KEY.encode())} somebody\n", hash_key(KEY.encode())),
    "MODEL_CACHE_TOKEN_FILE": ("ms-T0k3nOfTheHub\n", "T0k3nOfTheHub"),
    "MODEL_CACHE_NODE_TOKEN_FILE": ("n0de-t0ken\n", "n0de-t0ken"),
    "MODEL_CACHE_SERVE_TOKEN_FILE": ("s3rve-weights-t0ken-" + "x" * 20 + "\n", "s3rve-weights-t0ken"),
    "MODEL_CACHE_PROXY_FILE": ("http://me:pr0xy-p4ss@proxy.example:3128\n", "pr0xy-p4ss"),
    "GRAFANA_ADMIN_PASSWORD_FILE": ("gr4fana-admin\n", "gr4fana-admin"),
    "ALERT_WEBHOOK_URL_FILE": ("http://webhook:9095/h00k-s3cret\n", "h00k-s3cret"),
}


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    """Each secret under its setting; with what clients send, and the certificate's key."""
    return {name: secret for name, (_, secret) in TEXTS.items()} | {
        "a key": KEY,
        "a prompt": "the m3rger of tomorrow",
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]) -> dict[str, str]:
    """The files of the secrets, for the environment of Compose."""
    folder = tmp_path_factory.mktemp("secrets")
    cert, key = Authority(folder).issue()
    secrets["the certificate's key"] = key.decode().splitlines()[1]
    files = {name: text.encode() for name, (text, _) in TEXTS.items()}
    files |= {"GATEWAY_TLS_CERT_FILE": cert, "GATEWAY_TLS_KEY_FILE": key}
    for name, content in files.items():
        (folder / name.lower()).write_bytes(content)
        (folder / name.lower()).chmod(0o644)
    folder.chmod(0o755)
    return {name: str(folder / name.lower()) for name in files} | {"GATEWAY_AUDIT": "on"}


@pytest.fixture(scope="module")
def planted(stack: Stack, settings: dict[str, str], secrets: dict[str, str]) -> Iterator[Stack]:
    """The stack with all of them, after a request with a key and one without, and a run of the weights job."""
    stack.compose("build", "--quiet", *OPTIONAL, **settings)
    try:
        stack.compose("up", "-d", "--no-deps", "--wait", "gateway", *OPTIONAL, **settings)
        stack.compose("up", "-d", "--no-deps", f"{SLUG}-weights", **settings)
        for key in (KEY, KEY[:-1]):
            status, output = stack.run_in("gateway", asking_over_tls(key, secrets["a prompt"]))
            assert status == 0, output
        yield stack
    finally:
        stack.compose("--profile", "*", "rm", "--stop", "--force", *OPTIONAL, **settings)
        stack.compose("up", "-d", "--no-deps", f"{SLUG}-weights")
        stack.compose("up", "-d", "--no-deps", "--wait", "gateway")
        stack.wait_ready()


def asking_over_tls(key: str, prompt: str) -> str:
    """Python that sends a chat with a key, from inside the gateway's container."""
    body = json.dumps(
        {"model": "qwen3-0.6b", "max_tokens": 1, "messages": [{"role": "user", "content": prompt}]}
    )
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return (
        "import ssl; from http.client import HTTPSConnection; anybody = ssl.create_default_context();"
        "anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE;"
        "c = HTTPSConnection('127.0.0.1', 8000, timeout=60, context=anybody);"
        f"c.request('POST', '/v1/chat/completions', {body!r}, {headers!r}); print(c.getresponse().status)"
    )


def hidden(text: str, secrets: dict[str, str]) -> list[str]:
    """The secrets that are in `text`; none should be."""
    return [name for name, secret in secrets.items() if secret in text]


def test_docker_shows_no_secret(planted: Stack, secrets: dict[str, str]) -> None:
    """Neither of a container, its environment, command and mounts included, nor of an image."""
    for container in planted.containers():
        shown = planted.client.api.inspect_container(container.id)
        image = planted.client.api.inspect_image(shown["Image"])
        history = planted.client.api.history(shown["Image"])
        assert hidden(json.dumps([shown, image, history]), secrets) == [], container.name


def test_logs_show_no_secret(planted: Stack, secrets: dict[str, str]) -> None:
    """But for Alertmanager's, as docs/security.md says: where it is Debian's, it logs where it posts."""
    for container in planted.containers():
        if container.labels["com.docker.compose.service"] != "alertmanager":
            assert hidden(container.logs().decode(errors="replace"), secrets) == [], container.name


def test_metrics_and_audit_log_show_no_secret(planted: Stack, secrets: dict[str, str]) -> None:
    """The audit log is there: both requests have a line."""
    status, lines = planted.run_in(
        "gateway",
        "import pathlib; [print(one.read_text()) for one in pathlib.Path('/var/lib/octet').rglob('*.jsonl')]",
    )
    assert status == 0, lines
    assert {json.loads(line)["status"] for line in lines.splitlines() if '"event":"request"' in line} >= {401}
    assert hidden(lines + planted.ops("/metrics").decode() + planted.ops("/workers").decode(), secrets) == []


def test_compose_and_report_show_no_secret(
    planted: Stack, settings: dict[str, str], secrets: dict[str, str], tmp_path: Path
) -> None:
    """What is sent to others when something is wrong."""
    environment = os.environ | settings | {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_FILE": compose_files()}
    report = tmp_path / "report.txt"
    subprocess.run(
        [ROOT / "scripts/report", report], env=environment, check=True, capture_output=True, timeout=600
    )
    told = report.read_text()
    assert "==== gateway /metrics" in told
    assert f"{PROJECT}-gateway-1" in told
    assert hidden(told, secrets) == []
    config = planted.compose("--profile", "*", "config", **settings).stdout
    assert hidden(config, secrets) == []
