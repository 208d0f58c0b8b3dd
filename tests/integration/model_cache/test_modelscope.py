"""The local hub keeps the contract that the SDK relies on, as a program of its own."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import REPO, free_port

FILE = f"/api/v1/models/{REPO}/repo?Revision=master&FilePath=config.json"


@pytest.fixture
def endpoint(models: Path) -> Iterator[str]:
    """Address of ``python -m tests.hub`` over ``models``."""
    command = [sys.executable, "-m", "tests.hub", "--root", str(models), "--port", str(free_port())]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        yield program.stdout.readline().split()[-1]
        program.terminate()
        assert program.wait(5) == 0


def ask(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def put_faults(endpoint: str, *faults: dict[str, Any]) -> None:
    """Script the hub over HTTP."""
    body = json.dumps(faults).encode()
    urllib.request.urlopen(
        urllib.request.Request(f"{endpoint}/_faults", body, method="PUT"), timeout=5
    ).close()


def test_the_listing_has_trees_and_blobs(endpoint: str) -> None:
    """Below a root, entries carry their path in the repository, their size and their sha256."""
    url = f"{endpoint}/api/v1/models/{REPO}/repo/files?Revision=master&Recursive=True"
    whole = json.loads(ask(url)[2])["Data"]["Files"]
    below = json.loads(ask(f"{url}&Root=extra")[2])["Data"]["Files"]

    assert {entry["Type"] for entry in whole} == {"tree", "blob"}
    assert [entry["Path"] for entry in below] == ["extra/说明.md"]
    assert below[0] in whole


@pytest.mark.parametrize(
    ("asked", "status", "content_range"),
    [
        ("bytes=2-5", 206, "bytes 2-5/39"),
        ("bytes=35-", 206, "bytes 35-38/39"),
        ("bytes=39-", 416, "bytes */39"),
    ],
)
def test_ranges_are_exact(endpoint: str, models: Path, asked: str, status: int, content_range: str) -> None:
    """A range is answered with those bytes and says so; one beyond the end is refused."""
    content = (models / REPO / "config.json").read_bytes()
    first, _, last = asked.removeprefix("bytes=").partition("-")
    expected = content[int(first) : int(last) + 1 if last else None]

    answer, headers, body = ask(endpoint + FILE, Range=asked)

    assert (answer, headers["Content-Range"], body) == (status, content_range, expected)


def test_faults_and_requests_are_reached_over_http(endpoint: str) -> None:
    """A fault is used up, and every request for a model is on record."""
    put_faults(endpoint, {"kind": "status", "path": "config.json", "value": 503, "times": 1})

    assert [ask(endpoint + FILE)[0] for _ in range(2)] == [503, 200]
    assert json.loads(ask(f"{endpoint}/_requests")[2]) == [FILE, FILE]


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "none", "extra", ""])
def test_only_files_of_the_repository_are_served(endpoint: str, path: str) -> None:
    """Nothing outside it, and no directory."""
    assert ask(f"{endpoint}/api/v1/models/{REPO}/repo?Revision=master&FilePath={path}")[0] == 404
