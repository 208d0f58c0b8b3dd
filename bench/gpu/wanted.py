"""What a bare GPU host lacks of a slug's pins and lock.

usage: python -m bench.gpu.wanted SLUG FOLDER     writes a requirements file with hashes for each distribution
       python -m bench.gpu.wanted SLUG --of CACHE  prints the wheels in CACHE that are of these versions
"""

import re
import sys
from pathlib import Path

import pin

DOCKER = Path(__file__).resolve().parents[2] / "docker"
GATEWAY_LOCK = Path(__file__).resolve().parents[2] / "gateway/requirements.lock"
# The host has NVIDIA's own libraries (but not this NCCL) and what is built against numpy; nothing else needs the rest.
LEFT_OUT = re.compile(
    r"(nvidia-(?!nccl|ml-py|cudnn-frontend)|cuda-|pywin32|win32-|colorama|tilelang|z3-solver|pynvvideo|torchcodec|"
    r"tokenspeed|opencv|llvmlite|numba|numpy|torchaudio|instanttensor)"
)
OTHERS = re.compile(r"sys_platform == 'win32'|python_full_version < '3\.12'|platform_machine == 's390x'$")


def entries(lock: str) -> dict[str, str]:
    """A lock's entries by name, each with its hashes; of one that stands twice, that for this Python."""
    found = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock):
        head = entry.split("\n")[0].rstrip(" \\")
        if entry and not entry.startswith("#") and not OTHERS.search(head):
            found[re.split(r"[=\[ ]", head)[0].lower()] = re.sub(r" ;.*?(?= \\|$)", "", entry, count=1)
    return found


def wanted(slug: str, docker: Path = DOCKER) -> dict[str, str]:
    """The requirements of a slug's vLLM on such a host, by name; orjson is the gateway's."""
    vllm, torch = pin.read(docker / slug / "card.yaml")
    lock = docker / "locks" / f"vllm-{vllm.version}-cuda.lock"
    needs = {name: text for name, text in entries(lock.read_text()).items() if not LEFT_OUT.match(name)}
    gateway = {"orjson": entries(GATEWAY_LOCK.read_text())["orjson"]}
    return needs | gateway | {wheel.distribution: wheel.requirement for wheel in (vllm, torch)}


def chosen(cache: Path, needs: dict[str, str]) -> list[Path]:
    """The wheels of these requirements: a cache that served another build has others too."""
    versions = {(plain(name), version) for name, version in map(pinned, needs.values())}
    return [wheel for wheel in sorted(cache.glob("*.whl")) if named(wheel) in versions]


def pinned(requirement: str) -> tuple[str, str]:
    """Name and version of a requirement that names one version."""
    name, _, version = requirement.split()[0].partition("==")
    return name.partition("[")[0], version


def named(wheel: Path) -> tuple[str, str]:
    """Name and version of a wheel, by its file's name."""
    name, version = wheel.name.split("-")[:2]
    return plain(name), version


def plain(name: str) -> str:
    """A distribution's name as all ways to write it have it in common."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(words: list[str]) -> int:
    needs = wanted(words[0])
    if words[1] == "--of":
        print(*chosen(Path(words[2]), needs), sep="\n")
        return 0
    for name, text in needs.items():
        (Path(words[1]) / f"{name}.txt").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
