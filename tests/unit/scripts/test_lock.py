"""`make lock` and the age of releases. The real script asks an index on loopback, and changes no lock here."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).resolve().parents[3]
FIRST = ROOT / "gateway/requirements.lock"  # which the script makes first


class Index(BaseHTTPRequestHandler):
    """Has one release of every package, uploaded at `date`; without one, as an index that says none."""

    date: ClassVar[str | None] = None

    def do_GET(self) -> None:
        name = self.path.rstrip("/").rpartition("/")[2]
        file = f"{name.replace('-', '_')}-99.0-py3-none-any.whl"
        release = {"filename": file, "url": f"/files/{file}", "hashes": {"sha256": "a" * 64}}
        release |= {"upload-time": self.date} if self.date else {}
        page = {
            "meta": {"api-version": "1.1"},
            "name": name,
            "versions": ["99.0"],
            "files": [release | {"size": 1}],
        }
        body = json.dumps(page).encode()
        self.send_response(404 if self.path.startswith("/files/") else 200)
        self.send_header("content-type", "application/vnd.pypi.simple.v1+json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def index() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    thread.join()
    server.server_close()


def lock(index: str, *words: str) -> str:
    """What the script says when it fails, as it does here at the latest where it asks for a file."""
    before = FIRST.read_bytes()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    environment |= {"UV_DEFAULT_INDEX": index, "UV_NO_CONFIG": "1", "UV_NO_CACHE": "1"}
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [ROOT / "scripts/lock", *words], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert FIRST.read_bytes() == before
    return done.stderr


@pytest.mark.parametrize("date", [None, "2999-01-01T00:00:00Z"], ids=["no date", "too young"])
def test_what_is_too_young_or_has_no_date_is_not_locked(
    index: str, monkeypatch: pytest.MonkeyPatch, date: str | None
) -> None:
    """The line says why, and how to take it nevertheless."""
    monkeypatch.setattr(Index, "date", date)
    told = lock(index)
    assert "older than 7 days, or the index says no dates" in told
    assert "scripts/lock --any-age" in told


@pytest.mark.parametrize("date", ["2020-01-01T00:00:00Z", None])
def test_an_old_one_and_one_of_any_age_are_taken(
    index: str, monkeypatch: pytest.MonkeyPatch, date: str | None
) -> None:
    """Then the file itself is asked for; this index has none."""
    monkeypatch.setattr(Index, "date", date)
    told = lock(index, *([] if date else ["--any-age"]))
    assert "-99.0-py3-none-any.whl" in told
    assert "older than 7 days" not in told
