"""What crowds, neighbours and files that are not ours do to the shipped containers: nobody who asks notices."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from docker.models.containers import Container

from tests import wrong_files
from tests.e2e import hostile_launcher
from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, ROOT, Stack, wait_for
from tests.twins import dialogues

pytestmark = pytest.mark.full
CHAT, FORM = f"{GATEWAY}/v1/chat/completions", f"{GATEWAY}/v1/audio/transcriptions"
SHORT = {"model": MODEL, "temperature": 0, **dialogues.CHINESE.request()}

# sixty-four uploads

UPLOADS, UPLOAD_BYTES = 64, 50 * 1024 * 1024
PIECE_BYTES = 256 * 1024
PATIENCE_S = 600
MEMORY = """
from pathlib import Path
memory = Path("/sys/fs/cgroup/memory")
v1, root = memory.is_dir(), memory if memory.is_dir() else memory.parent
peak = int((root / ("memory.max_usage_in_bytes" if v1 else "memory.peak")).read_text())
events = (root / ("memory.oom_control" if v1 else "memory.events")).read_text()
kills = dict(line.split() for line in events.splitlines())
status = dict(line.split(":", 1) for line in Path("/proc/1/status").read_text().splitlines())
print(peak >> 20, kills["oom_kill"], int(status["VmHWM"].split()[0]) >> 10)
"""


@dataclass(frozen=True)
class Upload:
    """A request of 50 MiB: how it is sent, and what it is answered once it has been read."""

    url: str
    headers: dict[str, str]
    body: bytes
    answer: int

    def send(self) -> httpx.Response:
        """As most Python programs do; the body in pieces, of which the client holds no copy."""
        pieces = (self.body[at : at + PIECE_BYTES] for at in range(0, len(self.body), PIECE_BYTES))
        return httpx.post(self.url, headers=self.headers, content=pieces, timeout=PATIENCE_S, trust_env=False)


def uploads() -> dict[str, Upload]:
    """An image for a model that takes none, in three ways; and a recording, which goes to the worker as it is."""
    chat, sent = picture(), {"Content-Type": "application/json"}
    packed = gzip.compress(chat, compresslevel=1)
    form = recording()
    typed = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(len(form))}
    return {
        "length": Upload(CHAT, sent | {"Content-Length": str(len(chat))}, chat, 413),
        "chunked": Upload(CHAT, sent, chat, 413),
        "gzip": Upload(
            CHAT, sent | {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}, packed, 413
        ),
        "form": Upload(FORM, typed, form, 404),
    }


def picture() -> bytes:
    """A chat with an image in it that no program could make smaller."""
    url = {"url": "data:image/png;base64,"}
    message = {"role": "user", "content": [{"type": "image_url", "image_url": url}]}
    start, end = json.dumps({"model": MODEL, "messages": [message]}).encode().split(b'"}}')
    room = UPLOAD_BYTES - len(start) - len(end) - 3
    return (
        start + base64.b64encode(random.Random(1).randbytes(room // 4 * 3)).ljust(room, b"A") + b'"}}' + end
    )


def recording() -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % MODEL.encode()
    head += b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    end = b"\r\n--b--\r\n"
    return head + random.Random(2).randbytes(UPLOAD_BYTES - len(head) - len(end)) + end


@dataclass
class Chats:
    """Short chats, one after the other. endings: `whole`, or what came instead; waits: seconds that each took."""

    endings: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self.over.is_set():
                begun = time.monotonic()
                answer = client.post(CHAT, json=SHORT)
                self.waits.append(time.monotonic() - begun)
                self.endings[self.ending(answer)] += 1
                self.over.wait(0.1)

    def ending(self, answer: httpx.Response) -> str:
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text}"
        said = answer.json()["choices"][0]["message"]["content"]
        return "whole" if said.strip() == dialogues.CHINESE.answer.content else str(said)


def until_read(name: str, upload: Upload, together: threading.Barrier) -> list[str]:
    """Every answer that one client gets: it comes again when it is told to, until its upload is read."""
    told = []
    together.wait()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answer = upload.send()
        told.append(f"{name} {answer.status_code}")
        if answer.status_code != 503:
            break
        assert answer.json()["error"]["code"] == "overloaded", answer.text
        time.sleep(float(answer.headers["retry-after"]))
    return told


def memory(stack: Stack) -> tuple[int, int, int]:
    """Of the gateway's container: its peak in MiB, how often the kernel ended something, the process' own peak."""
    status, said = stack.run_in("gateway", MEMORY)
    assert status == 0, said
    peak, kills, process = map(int, said.split())
    return peak, kills, process


def bodies_bytes(stack: Stack) -> int:
    lines = stack.ops("/metrics").decode().splitlines()
    return int(float(next(line for line in lines if line.startswith("gateway_bodies_bytes ")).split()[1]))


@pytest.fixture
def gateway(stack: Stack) -> Container:
    """A gateway that has just begun, so that its peak is of this alone."""
    stack.compose("up", "-d", "--force-recreate", "--no-deps", "--wait", "gateway")
    stack.wait_ready()
    return stack.container("gateway")


def test_sixty_four_uploads_of_fifty_megabytes(stack: Stack, gateway: Container) -> None:
    """In 1 GiB: each is answered or told when to come again, chats beside them notice nothing, nothing is kept."""
    assert gateway.attrs["HostConfig"]["Memory"] == 1 << 30
    kinds, chats, together = uploads(), Chats(), threading.Barrier(UPLOADS)
    assert {len(upload.body) for upload in kinds.values() if "Content-Encoding" not in upload.headers} == {
        UPLOAD_BYTES
    }
    before = memory(stack)
    askers = [threading.Thread(target=chats.ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    begun = time.monotonic()
    with ThreadPoolExecutor(UPLOADS) as pool:
        names = list(kinds) * (UPLOADS // len(kinds))
        told = list(pool.map(lambda name: until_read(name, kinds[name], together), names))
    took = time.monotonic() - begun
    chats.over.set()
    for asker in askers:
        asker.join()
    wait_for("the gateway to hold no body", lambda: bodies_bytes(stack) == 0, 10)
    peak, kills, process = memory(stack)
    print(f"{UPLOADS} uploads in {took:.1f} s: first {Counter(map(tuple, (one[:1] for one in told)))}")
    print(f"all {Counter(one for answers in told for one in answers)}")
    print(f"memory before {before[0]} MiB, peak {peak} MiB of 1024, the process {process} MiB")
    waits = sorted(chats.waits)
    print(f"{len(waits)} chats: median {waits[len(waits) // 2]:.2f} s, latest {waits[-1]:.2f} s")
    assert [answers[-1] for answers in told] == [f"{name} {kinds[name].answer}" for name in names]
    assert set(chats.endings) == {"whole"}, chats.endings
    assert len(waits) > 10
    assert (kills, peak < 1024) == (0, True)
    was = gateway.attrs["State"]["Pid"]
    gateway.reload()
    state = gateway.attrs["State"]
    assert (state["OOMKilled"], gateway.attrs["RestartCount"], state["Pid"]) == (False, 0, was)


# the launcher, with real vLLM

Run = Callable[[str], dict[str, Any]]
DRIVER = "tests.e2e.hostile_launcher"


@pytest.fixture
def run(stack: Stack, tmp_path: Path) -> Run:
    """Runs a row of `hostile_launcher` in a container like the worker's; returns what it found."""
    gpus = tmp_path / "nvidia-smi"
    gpus.write_text(f"#!/bin/sh\nexec cat {hostile_launcher.GPUS}\n")
    gpus.chmod(0o755)
    mounts = ("-v", f"{ROOT}/tests:/hostile/tests:ro", "-v", f"{gpus}:/usr/local/bin/nvidia-smi:ro")
    how = ("--rm", "-T", "--no-deps", "--entrypoint", "python3", "--workdir", "/hostile", *mounts)

    def run(row: str) -> dict[str, Any]:
        done = stack.compose("run", *how, SLUG, "-m", DRIVER, row)
        found: dict[str, Any] = json.loads(done.stdout)
        print(json.dumps(found, ensure_ascii=False))
        return found

    return run


def check_end(found: dict[str, Any]) -> None:
    """It did what the row asks for, ended by itself within its grace, left no process and printed no traceback."""
    wrong = (found["problem"], found["exit_code"], found["left"], found["tracebacks"])
    assert wrong == (None, 0, [], []), found
    assert found["stopped_s"] <= found["grace_s"]


@pytest.mark.parametrize("row", hostile_launcher.SERVING)
def test_no_request_is_lost_whatever_is_done_to_a_worker_that_serves(run: Run, row: str) -> None:
    """What was begun before SIGTERM is answered whole, or, in its last moment, told to go elsewhere."""
    found = run(row)
    check_end(found)
    assert found["lost"] == {}
    assert found["whole"] >= 30
    assert found["refused"] <= hostile_launcher.CLIENTS
    assert found["stream"].startswith("data: [DONE]")
    assert "'length'" in found["stream"]
    if "health" in found["told"]:
        assert found["told"]["health"][0] == 1


@pytest.mark.parametrize("row", hostile_launcher.BEFORE)
def test_a_worker_that_cannot_serve_obeys_all_the_same(run: Run, row: str) -> None:
    """And has named what is in its way."""
    found = run(row)
    check_end(found)
    assert found["ready_s"] is None
    told = found["told"]
    assert {code for code, _ in told.get("health", [])} <= {1}
    assert "ready" not in told.get("phases", [])
    if "problem" in told:
        assert found["stopped_s"] < 5


@pytest.mark.parametrize("row", wrong_files.CHOSEN)
def test_advice_that_is_wrong_keeps_no_worker_from_serving(run: Run, row: str) -> None:
    """History, state, withdrawal and the signatures of slots."""
    found = run(row)
    check_end(found)
    assert (found["whole"], found["lost"]) == (1, {})
    told = found["told"]
    assert told["busy"].endswith("GPU 0 held by a launcher that left no name")
    assert told["health"][1] == "healthy: no launcher has written its state\n"
    assert len(told["dropped"]) == 1
    if "slot" in told:
        assert f"{hostile_launcher.WORK}" in told["slot"]


@pytest.mark.parametrize("row", hostile_launcher.WRONG)
def test_what_is_needed_and_wrong_is_named(run: Run, row: str) -> None:
    """In a line of bounded length; a worker whose files are right again serves."""
    found = run(row)
    check_end(found)
    problems = found["told"]["problems"]
    assert len(problems) >= 10
    assert [problem for problem in problems.values() if not problem.isprintable() or len(problem) > 800] == []
    if found["ready_s"] is not None:
        assert (found["whole"], found["lost"]) == (1, {})


# SIGTERM right after the start

MOMENTS_MS = (0, 5, 10, 20, 40, 60, 80, 100, 115, 130)
PID_FILES = (
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{id}/init.pid",
    "/run/containerd/io.containerd.runtime.v2.task/moby/{id}/init.pid",
)


def launcher_of(container: Container) -> int:
    """The host's number of its process 1, as soon as that keeps its signals."""
    path = wait_for("the process", lambda: pid_file(container), 30, every_s=0.001)
    pid = int(path.read_text())
    wait_for("its entry point", lambda: is_kept(pid), 30, every_s=0.001)
    return pid


def pid_file(container: Container) -> Path | None:
    files = (Path(name.format(id=container.id)) for name in PID_FILES)
    return next((file for file in files if file.exists() and file.read_text()), None)


def is_kept(pid: int) -> bool:
    """Whether SIGTERM would wait for this process to let it in, and it is the image's own, not what starts it."""
    if Path(os.readlink(f"/proc/{pid}/exe")).name.startswith("runc"):
        return False
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigBlk"], 16) & 1 << (signal.SIGTERM - 1))


def test_a_worker_that_is_stopped_as_soon_as_it_starts(stack: Stack) -> None:
    """The shipped container, ten times: SIGTERM up to 130 ms after its entry point began ends it with 0, at once."""
    container = stack.container(SLUG)
    container.update(restart_policy={"Name": "no"})
    container.stop()
    ended = []
    try:
        for moment in MOMENTS_MS:
            since = len(container.logs())
            starting = threading.Thread(target=container.start)
            starting.start()
            pid = launcher_of(container)
            time.sleep(moment / 1000)
            os.kill(pid, signal.SIGTERM)
            begun = time.monotonic()
            starting.join()
            code = container.wait(timeout=90)["StatusCode"]
            ended.append((moment, code, round(time.monotonic() - begun, 2)))
            assert b"Traceback" not in container.logs()[since:]
    finally:
        print(f"(moment in ms, exit code, seconds): {ended}")
        container.update(restart_policy={"Name": "unless-stopped"})
        stack.up()
    assert [code for _, code, _ in ended] == [0] * len(MOMENTS_MS)
    assert max(seconds for _, _, seconds in ended) < 10
