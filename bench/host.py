"""The host that a benchmark ran on, in words."""

import os
import platform
from pathlib import Path


def host() -> str:
    """Cores, their kind, and the kernel."""
    return f"{os.cpu_count()} cores of {_cpu()}, Linux {platform.release().split('-')[0]}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(names, platform.machine())
