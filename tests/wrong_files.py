"""READY.json, wrong in every way that somebody with a hand on the volume can think of: whoever reads it refuses each.

`wrong_records` yields what a file may say, `PLANTED` what may lie in the file's place. The weights job and the launcher
have readers of their own, and are tested with the same files. `WAYS` are those in which any other file that a launcher
reads may be wrong, such as its history of starts.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HASH = hashlib.sha256(b"ab").hexdigest()
FILE = {"path": "config.json", "size": 2, "sha256": HASH, "mtime_ns": 1, "inode": 1}
_UNSAFE_PATHS = {
    "a path that leaves the snapshot": "../config.json",
    "a path that leaves a directory of the snapshot": "sub/../../config.json",
    "a path from the root": "/etc/passwd",
    "a path with an empty part": "sub//config.json",
    "an empty path": "",
    "a path with a NUL": "config.json\0",
    "a path with a line end": "config\n.json",
    "a path that is READY.json": "READY.json",
    "a part of a path over 255 bytes": "x" * 256,
    "a path over 4096 bytes": "/".join(["x" * 200] * 21),
    "a path of 200 kB": "a/" * 100_000 + "x",
}
_NUMBERS = ("size", "mtime_ns", "inode")
_WRONG_NUMBERS = {
    "a number of 400 digits": "9" * 400,
    "a number of 5,000 digits": "9" * 5_000,
    "an infinite number": "1e999",
    "no number": "NaN",
    "a fraction": "2.5",
    "a truth value": "true",
    "a text": '"2"',
    "nothing": "null",
    "a list": "[2]",
}


def record(*files: dict[str, Any]) -> dict[str, Any]:
    """A right one of *files*, or of one file: what its readers take."""
    listed = list(files) or [FILE]
    return {
        "schema": 1,
        "repo": "owner/name",
        "revision": "master",
        "source": "modelscope",
        "digest": digest(listed),
        "bytes": sum(file["size"] for file in listed),
        "published_at": "2026-11-27T12:00:00Z",
        "locked": False,
        "files": listed,
    }


def digest(files: list[dict[str, Any]]) -> str:
    """Of the manifest."""
    lines = "".join(f"{file['path']}\0{file['size']}\0{file['sha256']}\n" for file in files)
    return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()


def directory_name(content: bytes) -> str:
    """How the snapshot's directory is called by what its record says, so that nothing else is wrong with it."""
    try:
        return str(json.loads(content)["digest"])[:16].ljust(16, "0")
    except (ValueError, KeyError, TypeError, RecursionError):
        return digest([FILE])[:16]


def wrong_records() -> Iterator[tuple[str, bytes]]:
    """What is wrong, and a READY.json that is so."""
    yield from _no_document()
    yield from _wrong_fields()
    for name, path in _UNSAFE_PATHS.items():
        yield name, text(record(FILE | {"path": path}))
    yield "a path with a lone surrogate", text(record(FILE | {"path": "\ud800"}))
    yield "the same path twice", text(record(FILE, FILE))
    yield "a file that is a directory too", text(record(FILE, FILE | {"path": "config.json/x"}))
    for field in _NUMBERS:
        for name, number in _WRONG_NUMBERS.items():
            yield f"{field} is {name}", _with_number(field, number)
    yield "a size below zero", text(record(FILE | {"size": -1}))


def _no_document() -> Iterator[tuple[str, bytes]]:
    yield "nothing at all", b""
    yield "half a document", text(record())[:100]
    yield "bytes that are no text", b"\xff\xfe"
    yield "lists 200,000 deep", b"[" * 200_000
    yield "objects 200,000 deep", b'{"files":' * 200_000
    yield "files 200,000 deep", b'{"schema": 1, "files": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    for value in (b"null", b"1", b'"x"', b"[]", b"{}", b"1e999", b"9" * 5_000):
        yield f"only {value[:9].decode()}", value


def _wrong_fields() -> Iterator[tuple[str, bytes]]:
    for field in ("schema", "digest", "files"):
        right = record()
        del right[field]
        yield f"no {field}", text(right)
        for value in (None, 7.5, "x", [], {}, [None], [[]]):
            yield f"{field} is {value!r}", text(record() | {field: value})
    for field in ("path", "size", "sha256", "mtime_ns", "inode"):
        yield (
            f"a file without {field}",
            text(record() | {"files": [{k: v for k, v in FILE.items() if k != field}]}),
        )
    for value in (None, 7, [], "x", HASH.upper(), HASH + "\n"):
        yield f"sha256 is {value!r}", text(record() | {"files": [FILE | {"sha256": value}]})
    for value in (None, 7, ["config.json"]):
        yield f"path is {value!r}", text(record() | {"files": [FILE | {"path": value}]})
    yield "the digest of other files", text(record() | {"digest": "0" * 64})


def text(document: dict[str, Any]) -> bytes:
    """As it would be written."""
    return json.dumps(document).encode()


def _with_number(field: str, number: str) -> bytes:
    """With *number*, which need be none that JSON's writer knows, and with the digest that it gives."""
    unlikely = 1_234_567_890_123
    content = text(record(FILE | {field: unlikely})).decode()
    content = content.replace(f'"bytes": {unlikely}', '"bytes": 2')
    return content.replace(str(unlikely), number).encode()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link(path: Path) -> None:
    other = path.with_name(f"{path.name}.other")
    other.write_bytes(text(record()))
    path.symlink_to(other)


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


PLANTED: dict[str, Callable[[Path], None]] = {
    "a pipe": _fifo,
    "a link to a device": _device,
    "a link to a right record": _link,
    "a link to itself": _circle,
    "a directory": Path.mkdir,
    "a file of a terabyte": _huge,
}
"""What may lie where the file should: called with its path, which must be free."""

WRONG: dict[str, bytes] = {
    "nothing": b"",
    "half": b'[{"loading": 4',
    "no text": b"\xff\xfe[]",
    "a NUL": b"\0",
    "lists 200,000 deep": b"[" * 200_000,
    "objects 200,000 deep": b'{"a":' * 200_000,
    "an infinite number": b'[{"loading": 1e999}]',
    "no number": b'[{"loading": NaN}]',
    "a number of 400 digits": b'[{"loading": ' + b"9" * 400 + b"}]",
    "a number of 5,000 digits": b'[{"loading": ' + b"9" * 5_000 + b"}]",
    "a number below zero": b'[{"loading": -1}]',
    "a truth value": b'[{"loading": true}]',
    "a text": b'[{"loading": "4"}]',
    "a lone surrogate": b'[{"\\ud800": 4}]',
    "another phase": b'[{"dancing": 4}]',
    "too many": json.dumps([{"loading": 4}] * 100).encode(),
    "a megabyte": b"[" + b" " * 1_000_000 + b"]",
    "null": b"null",
    "a list of lists": b"[[]]",
    "an object": b"{}",
}
"""What a launcher's history of starts may say; it is nonsense in any other file too."""

WAYS: dict[str, Callable[[Path], object]] = {
    **{name: lambda path, content=content: path.write_bytes(content) for name, content in WRONG.items()},
    **PLANTED,
}
"""Each puts something wrong at a path, which must be free."""

CHOSEN = (
    *("nothing", "no text", "lists 200,000 deep", "an infinite number", "a number of 5,000 digits"),
    *("a lone surrogate", "a megabyte", "a pipe", "a link to a device", "a directory"),
)
"""Ten of them, where a way costs a start."""
