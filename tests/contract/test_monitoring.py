"""What watches the stack: DCGM's exporter beside models for GPUs, Alertmanager where it is wanted, Grafana's admin."""

import csv
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import dcgm

ROOT = Path(__file__).resolve().parents[2]
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
TEMPLATES = yaml.safe_load((ROOT / "docker/worker.yaml").read_text())["services"]
CARDS = {path.parent.name: yaml.safe_load(path.read_text()) for path in ROOT.glob("docker/*/card.yaml")}
GPU_SLUGS = {slug for slug, card in CARDS.items() if card["hardware"]["gpus"]}
COUNTERS = ROOT / "observability/dcgm/counters.csv"
ALERTMANAGER = yaml.safe_load((ROOT / "observability/alertmanager/alertmanager.yaml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "observability/prometheus/prometheus.yaml").read_text())
GROUPS = yaml.safe_load((ROOT / "observability/prometheus/rules.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
NAMED = {name for rule in RULES for name in re.findall(r"\bDCGM_\w+", rule["expr"])}
SHOWN = {
    f"DCGM_FI_DEV_{name}"
    for name in (
        "GPU_UTIL",
        "FB_USED",
        "FB_FREE",
        "POWER_USAGE",
        "NVLINK_BANDWIDTH_TOTAL",
        "SM_CLOCK",
        "PCIE_REPLAY_COUNTER",
    )
}
ENDS = ("source", "target")


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_hardened_alike(name: str) -> None:
    """A user, a read-only root, no capabilities, no new privileges, bounds, and no names outside but for one."""
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "network_mode", "pid", "ipc"} & set(service)
    assert {"pids_limit", "mem_limit"} <= set(service)
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert service["dns"] == ([] if name == "alertmanager" else ["127.0.0.1"])


def test_a_way_out_has_a_network_of_its_own() -> None:
    """`egress` is for weights jobs alone, `notify` for Alertmanager alone."""
    every = SERVICES | TEMPLATES
    on = {
        network: {name for name, service in every.items() if network in service.get("networks", [])}
        for network in ("egress", "notify")
    }
    assert on == {"egress": {"weights"}, "notify": {"alertmanager"}}
    assert SERVICES["dcgm-exporter"]["networks"] == ["monitoring"]
    assert not {"ports", "expose"} & {*SERVICES["dcgm-exporter"], *SERVICES["alertmanager"]}


def test_the_exporter_starts_with_every_slug_for_gpus_and_no_other() -> None:
    """Its profiles in compose.yaml are the slugs whose cards ask for GPUs, and each of these starts it."""
    profiles = set(SERVICES["dcgm-exporter"]["profiles"])
    assert GPU_SLUGS - profiles == set(), "dcgm-exporter's profiles in compose.yaml lack these slugs"
    assert profiles - GPU_SLUGS == set(), "dcgm-exporter's profiles in compose.yaml are no slugs for GPUs"
    for slug in CARDS:
        own = yaml.safe_load((ROOT / f"docker/{slug}/compose.yaml").read_text())["services"][slug]
        wanted = {"condition": "service_started", "required": False} if slug in GPU_SLUGS else None
        assert own["depends_on"].get("dcgm-exporter") == wanted, slug


def test_counters_are_those_that_rules_and_dashboards_need() -> None:
    """Three fields a line, as dcgm-exporter wants it, and none that needs root."""
    lines = [line for line in COUNTERS.read_text().splitlines() if line and not line.startswith("#")]
    rows = [[field.strip() for field in row] for row in csv.reader(lines)]
    assert {len(row) for row in rows} == {3}
    assert {row[1] for row in rows} == {"gauge", "counter", "label"}
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names)
    assert (NAMED | SHOWN) - set(names) == set()
    assert [name for name in names if name.startswith("DCGM_FI_PROF_")] == []


def test_the_exporter_without_gpus_tells_the_same_counters() -> None:
    """Those of eight cards, with dcgm-exporter's labels, and with a word that they are not real."""
    samples = [line for line in dcgm.exposition(COUNTERS, 1e9).splitlines() if not line.startswith("#")]
    told = {(sample.split("{")[0], re.findall(r'gpu="(\d)"', sample)[0]) for sample in samples}
    names = {name for name, kind, _ in dcgm.counters(COUNTERS) if kind != "label"}
    assert told == {(name, str(gpu)) for name in names for gpu in range(8)}
    labels = {"gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION"}
    assert all(labels <= set(re.findall(r'(\w+)="', sample)) for sample in samples)
    assert all("(not real: " in sample for sample in samples)


def test_alerts_are_posted_where_a_secret_file_says() -> None:
    """Pages at once and hourly, tickets daily, both together by what they are about, and told when they are over."""
    route, (page,) = ALERTMANAGER["route"], ALERTMANAGER["route"]["routes"]
    assert ALERTMANAGER["receivers"] == [
        {
            "name": "webhook",
            "webhook_configs": [{"url_file": "/run/secrets/webhook-url", "send_resolved": True}],
        }
    ]
    assert {route["receiver"], page["receiver"]} == {"webhook"}
    assert route["group_by"] == ["alertname", "slug", "model"]
    assert page["group_by"] == ["alertname"]  # a model of two names is one outage
    assert page["matchers"] == ['severity="page"']
    assert (page["group_wait"], page["repeat_interval"], route["repeat_interval"]) == ("5s", "1h", "1d")
    mounts = [mount.rsplit(":", 2) for mount in SERVICES["alertmanager"]["volumes"]]
    assert ["${ALERT_WEBHOOK_URL_FILE:-/dev/null}", "/run/secrets/webhook-url", "ro"] in mounts


def test_alerts_that_silence_others_exist() -> None:
    """So do those that they silence; no alert silences itself."""
    alerts = {rule["alert"] for rule in RULES if "alert" in rule}
    for rule in ALERTMANAGER["inhibit_rules"]:
        (source,), (target,) = (re.findall(r'alertname=~?"(.+)"', *rule[f"{end}_matchers"]) for end in ENDS)
        silenced = {alert for alert in alerts if re.fullmatch(target, alert)}
        assert source in alerts - silenced
        assert all(any(re.fullmatch(word, alert) for alert in alerts) for word in target.split("|"))


def test_alertmanager_refuses_without_an_address() -> None:
    """One sentence that names the setting, and exit code 2."""
    if Path("/run/secrets/webhook-url").exists():
        pytest.skip("this host has an address there")
    words = ["sh", str(ROOT / "observability/alertmanager/start.sh"), "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "ALERT_WEBHOOK_URL_FILE" in done.stderr


def test_prometheus_finds_the_exporter_and_alertmanagers() -> None:
    """By DNS, so that neither has to be there; and whatever the operator's own file lists."""
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    (found,) = jobs["gpus"]["dns_sd_configs"]
    assert (found["names"], found["type"], found["port"]) == (["dcgm-exporter"], "A", 9400)
    by_name, by_file = PROMETHEUS["alerting"]["alertmanagers"]
    assert [(one["names"], one["port"]) for one in by_name["dns_sd_configs"]] == [(["alertmanager"], 9093)]
    (path,) = by_file["file_sd_configs"][0]["files"]
    assert f"${{PROMETHEUS_ALERTMANAGERS_FILE:-/dev/null}}:{path}:ro" in SERVICES["prometheus"]["volumes"]


@pytest.mark.parametrize("password", ["", "/etc/octet/grafana-password"])
def test_grafana_has_an_admin_only_with_a_password_file(password: str) -> None:
    """Without one the initial admin is not made; with one it is, and Grafana's own default password is taken away."""
    if shutil.which("docker") is None:
        pytest.skip("Docker Compose is not installed")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        ["docker", "compose", "--env-file", "/dev/null", "-f", "compose.yaml", "config", "grafana"],
        cwd=ROOT,
        env=kept | {"GRAFANA_ADMIN_PASSWORD_FILE": password},
        capture_output=True,
        text=True,
        check=False,
    )
    if "is not a docker command" in done.stderr or "unknown command" in done.stderr:
        pytest.skip("Docker Compose is not installed")
    grafana: dict[str, Any] = yaml.safe_load(done.stdout)["services"]["grafana"]
    made, no_default = (
        "cfg:security.disable_initial_admin_creation=false",
        "cfg:default.security.admin_password=",
    )
    inside = "/run/secrets/grafana-admin-password"
    source = next(mount["source"] for mount in grafana["volumes"] if mount["target"] == inside)
    assert grafana["environment"]["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == (inside if password else "")
    assert grafana["command"] == ([made, no_default] if password else [])
    assert source == (password or "/dev/null")
