"""What answers on each network: every TCP port of every container, as docs/security.md lists it, and nothing else."""

import json
from collections.abc import Iterator

import pytest
import yaml
from docker.models.containers import Container

from tests.contract.listeners import listeners, row_of
from tests.e2e.conftest import SLUG
from tests.e2e.stack import PROJECT, ROOT, Stack, wait_for

OWN = {"hub", "webhook"}  # stand in for what is outside
OPTIONAL = ("alertmanager", "webhook", "dcgm-exporter", "serve-weights")
NETWORKS = tuple(yaml.safe_load((ROOT / "compose.yaml").read_text())["networks"])
PORTS = range(1, 65536)
# Prints, for each address of argv[1], its open ports among those that are asked for. A port that is closed says so at
# once; of one that says nothing within a second, or of an address without a way to it, few are tried.
SCAN = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def state(address, port):
    with socket.socket() as one:
        one.settimeout(1)
        try:
            one.connect((address, port))
            return "open"
        except ConnectionRefusedError:
            return "closed"
        except OSError:
            return "silent"
def scan(target):
    address, first, last, wanted = target
    found, silent = [], 0
    for port in wanted or range(first, last):
        told = state(address, port)
        found += [port] if told == "open" else []
        silent += told == "silent"
        if silent > 20:
            return address, found, "silent"
    return address, found, "answers"
with ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(scan, json.loads(sys.argv[1])))))
"""
Target = tuple[str, int, int, list[int]]  # address, ports from and before, or which
Found = dict[str, set[int]]  # open ports by address


@pytest.fixture(scope="module")
def whole(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with all that can be switched on."""
    folder = tmp_path_factory.mktemp("scan")
    files = {"ALERT_WEBHOOK_URL_FILE": folder / "url", "MODEL_CACHE_SERVE_TOKEN_FILE": folder / "token"}
    for path, text in zip(files.values(), ("http://webhook:9095/alerts\n", "t" * 40 + "\n"), strict=True):
        path.write_text(text)
        path.chmod(0o644)
    settings = {name: str(path) for name, path in files.items()}
    stack.compose("build", "--quiet", "alertmanager", "serve-weights", **settings)
    try:
        stack.compose("up", "-d", "--no-deps", *OPTIONAL, **settings)
        yield stack
    finally:
        stack.compose("--profile", "*", "rm", "--stop", "--force", *OPTIONAL, **settings)


def service_of(container: Container) -> str:
    return str(container.labels["com.docker.compose.service"])


def running(stack: Stack) -> list[Container]:
    return [one for one in stack.containers() if one.status == "running" and service_of(one) not in OWN]


def address_on(container: Container, network: str) -> str | None:
    """Its address on one of the project's networks; None: it is not on it."""
    found = container.attrs["NetworkSettings"]["Networks"].get(f"{PROJECT}_{network}")
    return found["IPAddress"] if found else None


def scan(stack: Stack, network: str, targets: list[Target]) -> Found:
    """The open ports, as a container sees them that somebody has put on this network."""
    printed = stack.client.containers.run(
        stack.container("gateway").image, ["-c", SCAN, json.dumps(targets)], entrypoint="python3",
        network=f"{PROJECT}_{network}", remove=True,
    )  # fmt: skip
    return {address: set(ports) for address, ports, _ in json.loads(printed)}


@pytest.mark.parametrize("network", NETWORKS)
def test_only_what_is_listed_answers_on_a_network(whole: Stack, network: str) -> None:
    """All ports of all containers that are on it; all of those that listen are found, so the scan sees."""
    wait_for("every listener", lambda: not unanswered(whole, network), 60)
    there = {address: service_of(one) for one in running(whole) if (address := address_on(one, network))}
    found = scan(whole, network, [(address, PORTS.start, PORTS.stop, []) for address in there])
    rows = listeners()
    told = {there[address]: ports for address, ports in found.items()}
    assert told == {service: set(rows[row_of(service, {SLUG})].ports) for service in there.values()}
    assert all(network in rows[row_of(service, {SLUG})].networks for service in there.values())


def unanswered(stack: Stack, network: str) -> bool:
    """Whether something that listens is still starting."""
    rows = listeners()
    wanted = {
        address: sorted(rows[row_of(service_of(one), {SLUG})].ports)
        for one in running(stack)
        if (address := address_on(one, network))
    }
    found = scan(stack, network, [(address, 0, 0, ports) for address, ports in wanted.items() if ports])
    return any(found[address] != set(ports) for address, ports in wanted.items() if ports)


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_of_another_network_answers(whole: Stack, network: str) -> None:
    """Neither a container by an address that it has elsewhere, nor what is published, by the host's own address."""
    rows = listeners()
    elsewhere = [
        (address, 0, 0, sorted(rows[row_of(service_of(one), {SLUG})].ports))
        for one in running(whole)
        if not address_on(one, network)
        for other in NETWORKS
        if (address := address_on(one, other))
    ]
    config = whole.client.networks.get(f"{PROJECT}_{network}").attrs["IPAM"]["Config"]
    hosts = [(one["Gateway"], 0, 0, published()) for one in config if "Gateway" in one]
    found = scan(whole, network, [*elsewhere, *hosts])
    assert {address: ports for address, ports in found.items() if ports} == {}


def published() -> list[int]:
    return sorted(port for row in listeners().values() for _, port in row.published)


def test_the_networks_are_scanned_with_something_on_them(whole: Stack) -> None:
    """An empty network would prove nothing: all services that this host has run, each on its networks."""
    seen = {service_of(one) for one in running(whole)}
    assert {"gateway", SLUG, "prometheus", *OPTIONAL} - OWN <= seen
    assert {
        network for network in NETWORKS if not any(address_on(one, network) for one in running(whole))
    } <= {"egress"}


def test_nothing_is_published_but_what_is_listed(whole: Stack) -> None:
    """Where all of it runs, on loopback, since no setting says otherwise."""
    bound = {
        (service_of(one), entry["HostIp"], int(entry["HostPort"]))
        for one in running(whole)
        for entries in one.attrs["NetworkSettings"]["Ports"].values()
        for entry in entries or []
    }
    seen = {service_of(one) for one in running(whole)}
    rows = listeners()
    listed = {
        (name, "127.0.0.1", port) for name, row in rows.items() for _, port in row.published if name in seen
    }
    assert bound == listed


def test_the_gateway_alone_mounts_its_state(whole: Stack) -> None:
    """The volume with usage and audit log."""
    having = {
        service_of(one)
        for one in whole.containers()
        for mount in one.attrs["Mounts"]
        if mount.get("Name", "").endswith("gateway-state") or mount["Destination"] == "/var/lib/octet"
    }
    assert having == {"gateway"}
