"""Launchers of one node share its GPUs: each has its own, a clash names the holder, no death keeps one."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.launcher.harness import SLUG, Site, Worker

_GPUS = 8


@dataclass
class Node:
    """A host with a driver that lists its GPUs, and the volume that its workers share."""

    root: Path
    ends: ExitStack
    uuids: list[str] = field(default_factory=lambda: [f"GPU-{index:08x}" for index in range(_GPUS)])
    started: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots.mkdir()
        lines = "".join(f"{index}, {uuid}\n" for index, uuid in enumerate(self.uuids))
        self.nvidia_smi(f"cat <<'END'\n{lines}END")

    @property
    def slots(self) -> Path:
        """The volume `gpu-slots`."""
        return self.root / "gpu-slots"

    def nvidia_smi(self, script: str) -> None:
        """What the driver's program does in every container."""
        program = self.root / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def site(self, gpus: int, slug: str = SLUG) -> Site:
        """One more container on this node, with its weights in order."""
        site = Site(self.root / f"site-{len(list(self.root.iterdir()))}")
        site.publish(slug)
        site.settings = {
            "PATH": f"{self.root}:{os.environ['PATH']}",
            "LAUNCHER_SLUG": slug,
            "LAUNCHER_GPUS": str(gpus),
            "LAUNCHER_GPU_SLOTS_DIR": str(self.slots),
        }
        return site

    def start(self, site: Site) -> Worker:
        """A launcher that ends with the test, and what it started with it."""
        self.started.append(Worker(site))
        self.ends.callback(self.started[-1].close)
        return self.started[-1]

    def place(self, gpus: int, slug: str = SLUG) -> Worker:
        """Start one more worker."""
        return self.start(self.site(gpus, slug))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node of eight GPUs, all free."""
    with ExitStack() as ends:
        node = Node(tmp_path, ends)
        yield node
        for worker in node.started:  # all at once: each takes its two seconds
            worker.terminate()


def _given(worker: Worker) -> list[str]:
    """The GPUs that vLLM was started with."""
    return worker.wait_line("gpus: ").split(",")


def _named(problem: str) -> list[int]:
    """The GPUs whose holder is told; those that one container has held since one moment are told together."""
    lists = re.findall(rf"GPU ([\d, ]+) held by {SLUG} ", problem)
    return sorted(int(index) for indexes in lists for index in indexes.split(", "))


def _state(worker: Worker) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((worker.site.root / "state" / "state.json").read_text())
    return found


def test_replicas_get_a_gpu_each_and_one_too_many_waits_for_its_turn(node: Node) -> None:
    """Eight on eight GPUs; the ninth names the eight holders once, is unhealthy, and starts when one ends."""
    replicas = [node.place(1) for _ in range(_GPUS)]
    given = [_given(replica) for replica in replicas]
    assert sorted(gpu for mine in given for gpu in mine) == node.uuids
    ninth = node.place(1)
    said = ninth.wait_event("gpus-busy")
    assert said["problem"].startswith(f"1 needed, 0 of 8 free: GPU 0 held by {SLUG} (container ")
    assert _named(said["problem"]) == list(range(_GPUS))
    assert _state(ninth)["phase"] == "waiting-for-gpus"
    unhealthy = ninth.site.health()
    assert unhealthy.returncode == 1
    assert re.search(r"waiting-for-gpus for \d+ s: ", unhealthy.stdout)
    assert unhealthy.stdout.endswith(f": {said['problem']}\n")
    assert replicas[3].stop() == 0
    assert _given(ninth) == given[3]
    ninth.wait_event("phase", phase="ready")
    assert len([event for event in ninth.events("gpus-busy") if event["problem"] == said["problem"]]) == 1
    assert "waiting-for-gpus" in _state(ninth)["seconds"]


def test_two_slugs_share_a_node(node: Node) -> None:
    """Four and four: each has its half, the lower one first."""
    assert _given(node.place(4, "first")) == node.uuids[:4]
    second = node.place(4, "second")
    assert _given(second) == node.uuids[4:]
    assert [event["indexes"] for event in second.events("gpus")] == [[4, 5, 6, 7]]


def test_a_whole_node_waits_for_one_small_worker_and_takes_nothing_meanwhile(node: Node) -> None:
    """Eight against one: the clash names it, the seven others stay free, and its end lets the big one start."""
    small = node.place(1, "small")
    assert _given(small) == node.uuids[:1]
    big = node.place(8, "big")
    problem = big.wait_event("gpus-busy")["problem"]
    assert problem.startswith("8 needed, 7 of 8 free: GPU 0 held by small (container ")
    other = node.place(1, "other")
    assert _given(other) == node.uuids[1:2]
    assert "GPU 1 held by other" in big.wait_event("gpus-busy")["problem"]
    assert (small.stop(), other.stop()) == (0, 0)
    assert _given(big) == node.uuids


def test_a_killed_launchers_gpus_are_free_at_once(node: Node) -> None:
    """SIGKILL leaves the file with its name in it, and no lock: the next worker never waits."""
    killed = node.place(8, "killed")
    killed.wait_event("phase", phase="ready")
    orphan = killed.children()[0]
    try:
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
        assert json.loads((node.slots / node.uuids[0]).read_text())["slug"] == "killed"
        after = node.place(8, "after")
        assert _given(after) == node.uuids
        assert after.events("gpus-busy") == []
        assert json.loads((node.slots / node.uuids[0]).read_text())["slug"] == "after"
    finally:
        os.kill(orphan, signal.SIGKILL)  # in a container it would have ended with process 1


def test_gpus_are_kept_while_vllm_is_down(node: Node) -> None:
    """A crash and its back-off give nothing away; the next run gets the same GPUs."""
    site = node.site(2)
    site.settings["LAUNCHER_BACKOFF_S"] = "2"
    site.options = ("--fail", "once", "--marker", str(site.root / "failed"))
    worker = node.start(site)
    worker.wait_event("crash")
    assert _state(worker)["phase"] == "back-off"
    rival = node.place(8, "rival")
    assert f"GPU 0, 1 held by {SLUG}" in rival.wait_event("gpus-busy")["problem"]
    assert rival.stop() == 0
    assert worker.wait_event("gpus", run=2)["indexes"] == [0, 1]


def test_a_configuration_error_keeps_no_gpus(node: Node) -> None:
    """A worker that waits for a person leaves its GPUs to others."""
    site = node.site(8, "wrong")
    site.options = ("--fail", "validation")
    node.start(site).wait_event("configuration-error")
    right = node.place(8, "right")
    assert _given(right) == node.uuids


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 0, GPU-a; echo 1, GPU-b", "4 GPUs needed, 2 visible in this container"),
        ("echo No devices were found; exit 6", "nvidia-smi ends with 6: No devices were found"),
        (
            r"printf '\377, GPU-a\n'",
            "nvidia-smi says '\ufffd, GPU-a' where an index and a UUID were expected",
        ),
        (
            "printf '%05000d, GPU-a\\n' 7",
            f"nvidia-smi says {'0' * 300!r} where an index and a UUID were expected",
        ),
    ],
    ids=["two", "none", "no text", "5,000 digits"],
)
def test_too_few_gpus_are_a_configuration_error(node: Node, script: str, problem: str) -> None:
    """Said once with the remedy; then the worker waits, unhealthy, to be stopped."""
    node.nvidia_smi(script)
    worker = node.place(4)
    said = worker.wait_event("configuration-error")
    assert said["problem"] == problem
    assert said["mend"].startswith(f"docker compose up -d --build --force-recreate {SLUG}")
    unhealthy = worker.site.health()
    assert unhealthy.returncode == 1
    assert re.search(rf"misconfigured for \d+ s: {re.escape(problem)}$", unhealthy.stdout, re.MULTILINE)
    assert worker.stop() == 0
    assert not [line for line in worker.out if line.startswith("words:")]


def test_what_keeps_nvidia_smi_from_being_started_for_a_moment_is_waited_for(node: Node) -> None:
    """With no descriptor left the worker tries again after its back-off, and starts once there are some."""
    site = node.site(1)
    site.settings["LAUNCHER_BACKOFF_S"] = "0.2"
    link, aside = site.weights / "slugs" / SLUG, site.weights / "aside"
    link.rename(aside)
    worker = node.start(site)
    worker.wait_event("weights-not-ready")
    highest = max(map(int, os.listdir(f"/proc/{worker.process.pid}/fd")))
    least, most = resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (highest + 5, most))  # for the weights alone
    aside.rename(link)
    assert worker.wait_event("crash")["cause"] == "nvidia-smi cannot be started: Too many open files"
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (least, most))
    assert _given(worker) == node.uuids[:1]
    assert worker.events("configuration-error") == []


def test_a_worker_without_gpus_is_not_told_of_any(node: Node) -> None:
    """With 0, which is the default, nvidia-smi is not asked and vLLM's environment is unchanged."""
    node.nvidia_smi("exit 1")
    assert _given(node.place(0)) == ["None"]


def test_a_wait_for_gpus_ends_at_once_when_stopped(node: Node) -> None:
    """SIGTERM ends a launcher that waits, with exit code 0."""
    _given(node.place(8, "holder"))
    waiting = node.place(8)
    waiting.wait_event("gpus-busy")
    assert waiting.stop() == 0
    assert waiting.events("stopping") == []
