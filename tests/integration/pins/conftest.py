"""An index that serves while a test runs, and a copy of the repository that a bump may change."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from .harness import CPU, GPU, ROOT, Index, Quiet, Tree


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    directory = tmp_path / "index"
    directory.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=directory))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield Index(directory, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tree(tmp_path: Path, index: Index) -> Tree:
    root = tmp_path / "tree"
    for name in ("docker/pins", "docker/locks", f"docker/{GPU}", f"docker/{CPU}"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "docker/pin.py",
        "scripts/bump",
        "scripts/pins",
        "pyproject.toml",
        "tests/contract/test_pins.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "docker/wheelhouse").mkdir()
    (root / ".venv").symlink_to(ROOT / ".venv")
    (root / "Makefile").write_text("check-flags:\n\t@echo the flags of $(MODEL)\n")
    return Tree(root, index.address)
