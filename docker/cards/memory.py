"""Measures the host's memory, for the KV cache that vLLM keeps there (`preflight.of_memory`)."""

import re
from dataclasses import dataclass
from pathlib import Path

from cards import documents
from cards.host import HostError

_MAX_BYTES = 64 * 1024  # of /proc/meminfo
_KIB = 1024


@dataclass(frozen=True)
class Memory:
    """The host's memory in bytes: all of it, and what is free or can be freed, such as cached files."""

    total_bytes: int
    available_bytes: int


def measure(meminfo: Path = Path("/proc/meminfo")) -> Memory:
    """Return the memory of the host, which a container sees too, whatever its own limit is. Raises HostError."""
    try:
        text = documents.read(meminfo, _MAX_BYTES).decode(errors="replace")
    except OSError as error:
        raise HostError(f"{meminfo} cannot be read ({error.strerror}), so the memory is unknown") from None
    found = dict(re.findall(r"^(MemTotal|MemAvailable): +([0-9]{1,15}) kB$", text, re.MULTILINE))
    if len(found) != 2:
        raise HostError(f"{meminfo} does not tell the memory: it has no MemTotal or no MemAvailable")
    return Memory(int(found["MemTotal"]) * _KIB, int(found["MemAvailable"]) * _KIB)
