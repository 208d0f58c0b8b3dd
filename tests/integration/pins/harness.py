"""A nightly index on loopback, tiny real wheels, and a copy of the repository that a bump may change."""

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[3]
GPU, CPU = "step3p5-fp8", "qwen3-0p6b-cpu"
COMMIT = "4ba787ec9" + "0" * 31
NIGHTLY = "vllm-0.33.1rc1.dev7+g4ba787ec9-cp38-abi3-manylinux_2_28_x86_64.whl"
RELEASE = "vllm-0.33.0-cp38-abi3-manylinux_2_28_x86_64.whl"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """The tests read what the client says."""


class Index:
    """A directory of wheels and pages, served as both indexes are: nightly's at `/`, Python's at `/simple`."""

    def __init__(self, directory: Path, address: str) -> None:
        self.directory = directory
        self.address = address

    def wheel(self, file: str, folder: str = COMMIT, **inside: str) -> Path:
        """Puts a tiny wheel there; `inside` changes what its METADATA and its _version.py say."""
        name, version = file.split("-")[:2]
        says = {"name": name, "version": version, "torch": "2.13.0", "commit": "None"} | inside
        path = self.directory / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            info = f"{name}-{version}.dist-info"
            archive.writestr("vllm/_version.py", f"__commit_id__ = commit_id = {says['commit']}\n")
            archive.writestr(
                f"{info}/METADATA",
                f"Metadata-Version: 2.1\nName: {says['name']}\nVersion: {says['version']}\n"
                f"Requires-Dist: torch=={says['torch']}\n",
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp38-abi3-linux\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        return path

    def page(self, folder: str, *links: str, metadata: object = (), package: str = "vllm") -> None:
        """Writes the page of a package, with relative links that escape `+`, and its metadata.json."""
        path = self.directory / folder / package
        path.mkdir(parents=True, exist_ok=True)
        anchors = "".join(
            f'<a href="{quote(link, safe=":%/#=")}">{Path(link).name}</a><br/>\n' for link in links
        )
        (path / "index.html").write_text(f"<!DOCTYPE html>\n<html><body>\n{anchors}</body></html>\n")
        (path / "metadata.json").write_text(json.dumps(metadata))

    def nightly(self, file: str = NIGHTLY, fragment: str = "", metadata: object = (), **inside: str) -> Path:
        """One commit's build: the wheel in the commit's folder, the page below it."""
        path = self.wheel(file, **inside)
        self.page(COMMIT, f"../{file}{fragment}", metadata=metadata)
        return path

    def release(self, file: str = RELEASE, fragment: str = "", **inside: str) -> Path:
        """A release on the Python index."""
        path = self.wheel(file, "files", **inside)
        package = file.split("-")[0].replace("_", "-")
        self.page("simple", f"../../files/{file}{fragment}", package=package)
        return path


class Tree:
    """A copy of what a bump reads and writes; `environment` leads pip and the bump to the index alone."""

    def __init__(self, root: Path, address: str) -> None:
        self.root = root
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "VLLM_"))}
        ours = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{address}/simple", "NO_PROXY": "127.0.0.1"}
        self.environment = clean | ours

    def __getitem__(self, name: str) -> Path:
        return self.root / "docker" / name

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs one of the scripts."""
        return subprocess.run(
            words,
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def bump(
        self, slug: str, commit: str = "", version: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs `scripts/bump`."""
        return self.run("scripts/bump", slug, commit, version, **environment)

    def lock(self, version: str, variant: str) -> None:
        """Stands in for the lock of another version."""
        shutil.copy(self[f"locks/vllm-0.32.0-{variant}.lock"], self[f"locks/vllm-{version}-{variant}.lock"])

    def content(self) -> dict[str, str]:
        """Every file below docker/ by its hash."""
        files = [path for path in self["."].rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
