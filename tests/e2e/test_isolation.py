"""What the containers may do: nobody is root, no port but those named, no way out but the weights job's."""

import json
import subprocess
import sys

import pytest

from tests.e2e.conftest import SLUG
from tests.e2e.stack import GATEWAY, GRAFANA, PROMETHEUS, ROOT, Stack, get

# Whether a name outside resolves and answers, and whether an address outside does; {host} is what this host's pip asks.
REACH = """
import socket
def tries(*address):
    try:
        socket.create_connection(address, 4).close()
        return "reached"
    except OSError as error:
        return type(error).__name__
print(tries({host!r}, 443), tries({address!r}, 443))
"""


@pytest.fixture(scope="module")
def outside() -> tuple[str, str]:
    """Name and address of a host outside that a container with a way out can reach: the one this host's pip asks."""
    import socket

    from pip._internal.models.index import PyPI

    try:
        return PyPI.netloc, socket.gethostbyname(PyPI.netloc)
    except OSError:
        pytest.skip("this host itself reaches no package index: there is no outside to be kept from")


def test_only_the_weights_network_reaches_outside(stack: Stack, outside: tuple[str, str]) -> None:
    """From gateway and worker nothing outside answers; from the weights job's network it does, so the probe is real."""
    code = REACH.format(host=outside[0], address=outside[1])
    for service in ("gateway", SLUG):
        status, output = stack.run_in(service, code)
        assert (status, "reached" in output) == (0, False), f"{service}: {output}"
    control = stack.client.containers.run(
        stack.container(f"{SLUG}-weights").image,
        ["-c", code],
        entrypoint="python3",
        network=f"{stack.container(SLUG).labels['com.docker.compose.project']}_egress",
        remove=True,
    )
    assert control.decode().split() == ["reached", "reached"]


def test_prometheus_reaches_nothing_outside(stack: Stack, outside: tuple[str, str]) -> None:
    """Prometheus' network namespace has no way out either."""
    pid = stack.container("prometheus").attrs["State"]["Pid"]
    code = REACH.format(host=outside[0], address=outside[1])
    probe = ["nsenter", "--target", str(pid), "--net", sys.executable, "-c", code]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] != "reached"


def test_weights_jobs_alone_are_on_egress(stack: Stack) -> None:
    """Apart from weights jobs (and the hub that stands in for ModelScope) no container is on the egress network."""
    on_egress = {
        container.labels["com.docker.compose.service"]
        for container in stack.containers()
        if any(name.endswith("_egress") for name in container.attrs["NetworkSettings"]["Networks"])
    }
    assert on_egress == {f"{SLUG}-weights", "hub"}


def test_nobody_is_root_and_nothing_is_granted(stack: Stack) -> None:
    """Every container runs as a user, without capabilities or new privileges, on a read-only root."""
    for container in stack.containers():
        config, host = container.attrs["Config"], container.attrs["HostConfig"]
        assert config["User"].split(":")[0] not in ("", "0", "root"), container.name
        assert host["CapDrop"] == ["ALL"], container.name
        assert not host["CapAdd"], container.name
        assert not host["Privileged"], container.name
        assert "no-new-privileges:true" in host["SecurityOpt"], container.name
        assert host["ReadonlyRootfs"], container.name


def test_processes_run_without_capabilities(stack: Stack) -> None:
    """The kernel agrees: process 1 of gateway and worker has no effective, permitted or bounding capability."""
    for service in ("gateway", SLUG):
        status, output = stack.run_in(service, "print(open('/proc/1/status').read())")
        assert status == 0
        masks = dict(line.split(":\t") for line in output.splitlines() if line.startswith("Cap"))
        assert {masks[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}, service


def test_published_ports_are_on_loopback_and_few(stack: Stack) -> None:
    """Published are 127.0.0.1:8000 and :9090 (and :3000 where Grafana has an image), nothing else, and all answer."""
    bound = {
        (entry["HostIp"], entry["HostPort"])
        for container in stack.containers()
        for entries in container.attrs["NetworkSettings"]["Ports"].values()
        for entry in entries or []
    }
    grafana = has_grafana(stack)
    assert bound == {("127.0.0.1", port) for port in ("8000", "9090", *(["3000"] if grafana else []))}
    assert get(f"{GATEWAY}/health")[0] == 200
    assert get(f"{PROMETHEUS}/-/ready")[0] == 200
    assert not grafana or get(f"{GRAFANA}/api/health")[0] == 200


def test_worker_and_weights_see_only_what_they_need(stack: Stack) -> None:
    """The worker has the weights read-only; the Docker socket is mounted nowhere."""
    worker = {mount["Destination"]: mount["RW"] for mount in stack.container(SLUG).attrs["Mounts"]}
    assert worker["/weights"] is False
    sources = [
        mount.get("Source", "") for container in stack.containers() for mount in container.attrs["Mounts"]
    ]
    assert not [source for source in sources if source.endswith("docker.sock")]


def test_the_gateways_hot_path_is_compiled(stack: Stack) -> None:
    """The image has what the benchmark measures."""
    code, found = stack.run_in(
        "gateway", "from gateway.proxy import handler as h, relay as r; print(h.__file__, r.__file__)"
    )
    assert (code, found.count(".so")) == (0, 2), found


def test_compose_config_is_silent(stack: Stack) -> None:
    """`docker compose config -q` has nothing to complain about, with public images and without a registry."""
    for files in ("compose.yaml", "compose.yaml:compose.noregistry.yaml"):
        done = stack.compose("--profile", "*", "config", "-q", COMPOSE_FILE=files, BASE_IMAGE="some/image")
        assert (done.stdout, done.stderr) == ("", "")


def has_grafana(stack: Stack) -> bool:
    """Whether this host's choice of Compose files runs Grafana; without an image registry it has no image."""
    services = json.loads(stack.compose("config", "--format", "json").stdout)["services"]
    if "grafana" not in services:
        print(f"SKIPPED for Grafana: no image here ({ROOT / 'compose.noregistry.yaml'} keeps it off)")
    return "grafana" in services
