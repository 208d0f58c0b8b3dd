"""The rooms of each program are a house: whoever imports from a floor above, or moves in unlisted, is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway/src/gateway", "model-cache/src/model_cache", "docker/launcher", "docker/cards")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the programs with the contracts."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(house: Path) -> subprocess.CompletedProcess[str]:
    folders = {(house / package).parent: None for package in PACKAGES}
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=house,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_house_as_it_is(house: Path) -> None:
    done = lint(house)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize(
    ("module", "above"),
    [
        ("http/headers.py", "api.errors"),
        ("api/routes.py", "config.settings"),
        ("config/catalog.py", "fleet.health"),
        ("fleet/fleet.py", "telemetry.logs"),
        ("upstream/pool.py", "server.request"),
        ("server/request.py", "proxy.handler"),
        ("proxy/relay.py", "control.api"),
        ("control/api.py", "app"),
    ],
)
def test_an_import_from_a_room_above(house: Path, module: str, above: str) -> None:
    """Or from one beside it on the same floor; also one inside a function, which runs late."""
    path = house / "gateway/src/gateway" / module
    path.write_text(path.read_text() + f"\n\ndef planted() -> None:\n    import gateway.{above}\n")
    done = lint(house)
    assert done.returncode == 1
    assert f"gateway.{module.removesuffix('.py').replace('/', '.')} -> gateway.{above}" in done.stdout


def test_a_room_that_no_floor_has(house: Path) -> None:
    """A new folder, or a module beside the rooms, has to be given its floor."""
    (house / "gateway/src/gateway/attic.py").write_text('"""Odds and ends."""\n')
    done = lint(house)
    assert done.returncode == 1
    assert "gateway.attic" in done.stdout


def test_the_framework_comes_no_further_than_control(house: Path) -> None:
    path = house / "gateway/src/gateway/proxy/relay.py"
    path.write_text(path.read_text() + "\nimport fastapi\n")
    done = lint(house)
    assert done.returncode == 1
    assert "gateway.proxy.relay -> fastapi" in done.stdout


@pytest.mark.parametrize(
    ("path", "above"),
    [
        ("model-cache/src/model_cache/storage/volume.py", "model_cache.sources.chain"),
        ("model-cache/src/model_cache/manifest/lockfile.py", "model_cache.storage.safe_open"),
        ("model-cache/src/model_cache/sources/http_mirror.py", "modelscope_hub"),
        ("docker/launcher/engine/watch.py", "launcher.process.process"),
        ("docker/launcher/files/safe_open.py", "launcher.status.logs"),
    ],
)
def test_the_weights_job_and_the_launcher_have_rooms_too(house: Path, path: str, above: str) -> None:
    """Rooms on a floor do not know each other, and only one module knows the hub's SDK."""
    planted = house / path
    planted.write_text(planted.read_text() + f"\n\ndef planted() -> None:\n    import {above}\n")
    done = lint(house)
    assert done.returncode == 1
    assert above in done.stdout
