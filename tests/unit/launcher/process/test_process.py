"""What a program leaves behind is ended with it, or at the latest before the next one is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCKER = Path(__file__).resolve().parents[4] / "docker"
ENGINE = """
import os, signal
mine, ranks = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(ranks, b".")
    signal.pause()
os.read(mine, 1)
"""
LEAVE = """
import io, os, resource, sys
from launcher.process import process, process_tree
from launcher.process.init import Init

def limit(descriptors):
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, most))

def run(*command):
    program = process.start(command, {}, init.spared, io.BytesIO(), io.BytesIO())
    while program.pid not in (ended := init.wait(None).ended):
        pass
    return program, ended[program.pid]

def await_that_nobody_is_left():
    while process_tree.descendants(os.getpid()):
        init.wait(10)

least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
with Init() as init:
    program, exit_code = run(sys.executable, "-c", sys.argv[1])
"""  # in a process of its own: an `Init` reaps every child
NONE_LEFT = """
    limit(max(map(int, os.listdir("/proc/self/fd"))) + 1)
    while True:
        try:
            os.dup(0)
        except OSError:
            break
    program.note_end(exit_code)
    await_that_nobody_is_left()
    print("nobody is left")
"""
NEXT_START = """
    limit(3)
    program.note_end(exit_code)
    try:
        run("true")
    except process.StartError as error:
        print(error)
    limit(least)
    print(len(process_tree.descendants(os.getpid())), "is left")
    program, exit_code = run("true")
    await_that_nobody_is_left()
    print("nobody is left")
"""


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (NONE_LEFT, ["nobody is left"]),
        (NEXT_START, ["true cannot be started: Too many open files", "1 is left", "nobody is left"]),
    ],
    ids=["its own", "not even its own"],
)
def test_no_descriptor_is_left_to_look_with(then: str, said: list[str]) -> None:
    """The program's own are free at its end; where that is not enough nothing is started until there are some."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVE + then, ENGINE],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(DOCKER)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.splitlines(), done.stderr) == (said, "")
