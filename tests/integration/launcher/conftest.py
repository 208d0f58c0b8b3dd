"""A site for a worker, and workers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.launcher.harness import Site, Worker


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Empty folders and a free port."""
    return Site(tmp_path)


@pytest.fixture
def start(site: Site) -> Iterator[Callable[..., Worker]]:
    """Starts a launcher at the site; `words` are its arguments, `prefix` a program that runs it."""
    with ExitStack() as stack:

        def start_worker(words: tuple[str, ...] = (), prefix: tuple[str, ...] = ()) -> Worker:
            worker = Worker(site, words, prefix)
            stack.callback(worker.close)
            return worker

        yield start_worker
