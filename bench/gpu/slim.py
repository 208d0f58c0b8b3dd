"""Blanks the machine code in CUDA libraries that a GPU of one kind never runs, so that they pack to a fraction.

usage: python -m bench.gpu.slim ARCHITECTURE FILE.so ...     ARCHITECTURE: 90 for compute capability 9.0
A fat binary holds the same kernels for several architectures. Where it has machine code for this one, everything else
in it becomes zeros, in place: no byte of what runs changes, nor any address. Prints what was blanked, a line a file.
"""

import mmap
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = struct.pack("<I", 0xBA55ED50)
HEAD = struct.Struct("<IHHQ")  # magic, version, size of this head, bytes behind it
ENTRY = struct.Struct("<HHIQ")  # kind, version, size of this head, bytes behind it
ARCHITECTURE_AT = 28  # in an entry's head
KINDS = (1, 2, 4, 8, 16, 32)
MACHINE_CODE = 2


class Entry(NamedTuple):
    """One compiled form: what it is, for which architecture, where its bytes are."""

    kind: int
    architecture: int
    start: int
    size: int


def fat_binaries(data: mmap.mmap | bytearray) -> Iterator[list[Entry]]:
    """The entries of every fat binary in `data`."""
    at = data.find(MAGIC)
    while at >= 0 and at + HEAD.size <= len(data):
        _, version, head, size = HEAD.unpack_from(data, at)
        end = at + head + size
        if version == 1 and head == HEAD.size and end <= len(data):
            yield list(entries(data, at + head, end))
        else:
            end = at + len(MAGIC)  # the same four bytes by chance
        at = data.find(MAGIC, end)


def entries(data: mmap.mmap | bytearray, at: int, end: int) -> Iterator[Entry]:
    while at + ARCHITECTURE_AT + 4 <= end:
        kind, _, head, size = ENTRY.unpack_from(data, at)
        if kind not in KINDS or not 32 <= head <= 4096 or at + head + size > end:
            return
        (architecture,) = struct.unpack_from("<I", data, at + ARCHITECTURE_AT)
        yield Entry(kind, architecture, at + head, size)
        at += head + size


def slim(data: mmap.mmap | bytearray, architecture: int) -> int:
    """Blanks what is not for `architecture`, where something is. Returns how many bytes that were."""
    blanked = 0
    for found in fat_binaries(data):
        if any(is_for(entry, architecture) for entry in found):
            for entry in found:
                if not is_for(entry, architecture):
                    data[entry.start : entry.start + entry.size] = bytes(entry.size)
                    blanked += entry.size
    return blanked


def is_for(entry: Entry, architecture: int) -> bool:
    return entry.kind == MACHINE_CODE and entry.architecture == architecture


def main(words: list[str]) -> int:
    architecture, paths = int(words[0]), [Path(word) for word in words[1:]]
    for path in paths:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
            print(f"{path}: {slim(data, architecture) / 1e6:,.0f} of {len(data) / 1e6:,.0f} MB blanked")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
