"""What the weights job's own work costs: hashing, fetching, starting over, memory. Real SDK, local hub, loopback.

usage: python -m bench.weights [--rounds 7] [--gigabytes 20] [--page FILE]
Ratios are of one run, the two sides of each in turns. Data is generated; what is hashed lies on the disk's file system,
as weights do, and is held in memory meanwhile, so that the disk's speed stays out of it.
Exit codes: 0 all bars hold · 1 one was missed · 3 a run of the job failed
"""

import argparse
import json
import mmap
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from bench.bars import Verdict
from bench.host import host
from bench.marked import replaced
from model_cache.manifest.manifest import ManifestFile
from model_cache.storage.verify import verify

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
REPO = "bench/weights"
GB = 10**9
HASHED_FILES, HASHED_BYTES = 16, 512 << 20  # each: 3 s of two cores, beside which a start counts for nothing
FETCHED_BYTES = 2 * GB
RESTART_FILES = 100
REMEMBERED_FILES = 20  # whatever their size, so that as many come at a time
TARGET = "bench-weights"
IMAGE = {  # as model-cache/Dockerfile has it
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
}
BLOCK = 8 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the weights job."""

    wall_s: float
    fetched_bytes_per_s: float
    peak_rss_bytes: int


def raw_rate(count: int) -> float:
    """Bytes a second of SHA-256 on all cores, over one block in memory again and again."""
    block = os.urandom(BLOCK)

    def hash_all(_: int) -> None:
        digest = sha256()
        for _ in range(HASHED_BYTES // BLOCK):
            digest.update(block)

    return rate(count * HASHED_BYTES, lambda: on_all_cores(hash_all, range(count)))


def our_rate(root: Path, files: Sequence[ManifestFile]) -> float:
    """Bytes a second of the job's own verification."""

    def read() -> None:
        assert verify(root, files, lambda _file, _count: None).wrong == []

    return rate(sum(file.size for file in files), read)


def openssl_rate(root: Path, files: Sequence[ManifestFile]) -> float:
    """Bytes a second of `openssl dgst`, a process for each core. Raises CalledProcessError."""

    def digest(file: ManifestFile) -> None:
        words = ["openssl", "dgst", "-sha256", str(root / file.path)]
        assert file.sha256 in subprocess.run(words, check=True, capture_output=True, text=True).stdout

    return rate(sum(file.size for file in files), lambda: on_all_cores(digest, files))


def rate(count: int, work: Callable[[], None]) -> float:
    """Of so many bytes, a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def on_all_cores(work: Callable[[T], None], items: Iterable[T]) -> None:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(work, items))


def hashed(root: Path) -> list[ManifestFile]:
    """Files to hash, below *root*."""
    found = []
    for number in range(HASHED_FILES):
        content = os.urandom(BLOCK) * (HASHED_BYTES // BLOCK)
        (root / f"{number}").write_bytes(content)
        found.append(ManifestFile(f"{number}", len(content), sha256(content).hexdigest()))
    return found


@contextmanager
def in_memory(paths: Iterable[Path]) -> Iterator[None]:
    """Keeps the files' pages in memory: what is mapped is not dropped, though the job asks for that before it reads."""
    with ExitStack() as maps:
        for path in paths:
            with path.open("rb") as file:
                flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
                maps.enter_context(mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ))
        yield


def model(root: Path, sizes: Sequence[int]) -> None:
    """A repository for the hub: a configuration, and files of zeros that take no space."""
    folder = root / REPO
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for number, size in enumerate(sizes):
        with (folder / f"model-{number:05}.safetensors").open("wb") as file:
            file.truncate(size)


def run_job(volume: Path, endpoint: str) -> Run:
    """Raises CalledProcessError."""
    settings = {
        "SLUG": "bench",
        "REPO": REPO,
        "DIR": str(volume),
        "ENDPOINT": endpoint,
        "PORT": "0",
        "PROGRESS": "json",
    }
    environment = os.environ | IMAGE | {f"MODEL_CACHE_{name}": value for name, value in settings.items()}
    start = time.perf_counter()
    words = [sys.executable, "-m", "model_cache"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines, peaks = [], [0]
        for line in process.stdout:
            lines.append(json.loads(line))
            peaks.append(peak_rss_bytes(process.pid) or peaks[-1])
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words, output=str(lines[-1:]))
    return Run(time.perf_counter() - start, fetched_rate(lines), peaks[-1])


def peak_rss_bytes(pid: int) -> int:
    """So far; 0 once it has ended. What wait4() tells would count this process' own memory, which it began with."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(peak[1]) * 1024 if peak else 0


def fetched_rate(lines: Sequence[dict[str, object]]) -> float:
    """Bytes a second of the phase `downloading`; 0 where there was none."""
    times = {phase: stamp(lines, phase) for phase in ("downloading", "verifying")}
    sizes = [int(str(line["bytes_total"])) for line in lines if line["phase"] == "downloading"]
    begin, end = times["downloading"], times["verifying"]
    return sizes[0] / (end - begin) if begin and end else 0.0


def stamp(lines: Sequence[dict[str, object]], phase: str) -> float:
    """When the phase began; 0 if it did not."""
    found = (
        datetime.fromisoformat(str(line["time"])).timestamp() for line in lines if line["phase"] == phase
    )
    return next(found, 0.0)


def curl_rate(endpoint: str, path: str) -> float:
    """Bytes a second of curl with the same file, written to a disk as the job does."""
    url = f"{endpoint}/api/v1/models/{REPO}/repo?Revision=master&FilePath={path}"
    with tempfile.NamedTemporaryFile(dir=ROOT / "out") as target:
        words = [
            "curl",
            "--silent",
            "--fail",
            "--output",
            target.name,
            "--write-out",
            "%{speed_download}",
            url,
        ]
        return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def interleaved(rounds: int, *sides: Callable[[], float]) -> list[list[float]]:
    """What each side gave, taking turns."""
    found: list[list[float]] = [[] for _ in sides]
    for at in range(rounds):
        print(f"bench-weights: round {at + 1} of {rounds}", file=sys.stderr, flush=True)
        for side, values in zip(sides, found, strict=True):
            values.append(side())
    return found


def hashing(rounds: int) -> list[Verdict]:
    with tempfile.TemporaryDirectory(dir=ROOT / "out") as folder:
        root, files = Path(folder), hashed(Path(folder))
        with in_memory(root / file.path for file in files):
            ours, raw, tool = interleaved(
                rounds,
                lambda: our_rate(root, files),
                lambda: raw_rate(HASHED_FILES),
                lambda: openssl_rate(root, files),
            )
    say("hashing, GB/s", ours, raw)
    say("hashing, GB/s", ours, tool)
    return [
        Verdict("hashing, of raw SHA-256 on the same cores", median(ours) / median(raw), 0.9, most=False),
        Verdict("hashing, of openssl on the same files", median(ours) / median(tool), 0.9, most=False),
    ]


def fetching(rounds: int, bench: "Bench") -> Verdict:
    model(bench.models, [FETCHED_BYTES])
    path = "model-00000.safetensors"
    ours, curl = interleaved(rounds, bench.fetch_rate, lambda: curl_rate(bench.endpoint, path))
    say("fetching, GB/s", ours, curl)
    return Verdict("fetching, of curl's rate", median(ours) / median(curl), 0.8, most=False)


def restarting(rounds: int, bench: "Bench") -> Verdict:
    model(bench.models, [10**6] * (RESTART_FILES - 1))
    with bench.volume() as volume:
        run_job(volume, bench.endpoint)
        walls = [run_job(volume, bench.endpoint).wall_s for _ in range(rounds)]
    return Verdict(f"seconds to start over a complete snapshot of {RESTART_FILES} files", median(walls), 1.0)


def remembering(gigabytes: int, bench: "Bench") -> Verdict:
    peaks = {}
    for count in (1, gigabytes):
        model(bench.models, [count * GB // REMEMBERED_FILES] * REMEMBERED_FILES)
        with bench.volume() as volume:
            peaks[count] = run_job(volume, bench.endpoint).peak_rss_bytes
        print(f"bench-weights: {count} GB: peak {peaks[count] / 2**20:.0f} MiB", file=sys.stderr, flush=True)
    return Verdict(f"peak memory, {gigabytes} GB of that of 1 GB", peaks[gigabytes] / peaks[1], 1.1)


@dataclass(frozen=True, slots=True)
class Bench:
    """The hub, what it serves, and room for volumes."""

    models: Path
    room: Path
    endpoint: str

    @contextmanager
    def volume(self) -> Iterator[Path]:
        """An empty volume for one use."""
        with tempfile.TemporaryDirectory(dir=self.room) as folder:
            yield Path(folder)

    def fetch_rate(self) -> float:
        with self.volume() as volume:
            return run_job(volume, self.endpoint).fetched_bytes_per_s


@contextmanager
def hub(models: Path) -> Iterator[str]:
    """A hub that serves *models*; yields its address."""
    words = [sys.executable, "-m", "tests.hub", "--root", str(models), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def say(name: str, ours: Sequence[float], other: Sequence[float]) -> None:
    texts = [f"{median(v) / GB:.2f} ({min(v) / GB:.2f}-{max(v) / GB:.2f})" for v in (ours, other)]
    print(f"bench-weights: {name}: {texts[0]}, the other side {texts[1]}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gigabytes", type=int, default=20)
    parser.add_argument("--page", type=Path, help="write the table into this page, between its marks")
    given = parser.parse_args()
    try:
        verdicts = measured(given.rounds, given.gigabytes)
    except subprocess.CalledProcessError as error:
        print(f"bench-weights: {error}: {error.output}", file=sys.stderr)
        return 3
    for verdict in verdicts:
        print(verdict.text())
    if given.page:
        given.page.write_text(replaced(given.page.read_text(), written(verdicts, given.rounds), TARGET))
    return int(any(verdict.is_missed for verdict in verdicts))


def written(verdicts: Sequence[Verdict], rounds: int) -> str:
    """The table, and when and where it was measured; Markdown."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    head = f"{today}, {host()}, Python {platform.python_version()}; medians of {rounds} rounds.\n"
    rows = [f"| {v.name}: {v.side} {v.bar:g} | {v.value:.2f} | {v.state} |" for v in verdicts]
    return "\n".join([head, "| bar | measured |  |", "| --- | --: | --- |", *rows, ""])


def measured(rounds: int, gigabytes: int) -> list[Verdict]:
    with tempfile.TemporaryDirectory(dir=ROOT / "out") as folder:
        room = Path(folder)
        (room / "models").mkdir()
        with hub(room / "models") as endpoint:
            bench = Bench(room / "models", room, endpoint)
            return [
                *hashing(rounds),
                fetching(rounds, bench),
                restarting(rounds, bench),
                remembering(gigabytes, bench),
            ]


if __name__ == "__main__":
    sys.exit(main())
