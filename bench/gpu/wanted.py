"""Writes what a bare GPU host lacks of a slug's pins and lock: a requirements file with hashes for each distribution.

usage: python -m bench.gpu.wanted SLUG FOLDER
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


def main(words: list[str]) -> int:
    slug, folder = words[0], Path(words[1])
    for name, text in wanted(slug).items():
        (folder / f"{name}.txt").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
