"""Files reach clients whether or not the kernel can send from their file system."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from model_cache.http.sender import Piece, Sender

CONTENT = os.urandom(3 << 20)


def taken(connection: socket.socket, into: bytearray) -> None:
    while block := connection.recv(1 << 16):
        into += block


def sent(path: Path, begin: int, end: int) -> bytes:
    """What a client gets that takes all."""
    found, (ours, theirs) = bytearray(), socket.socketpair()
    reader = threading.Thread(target=taken, args=(theirs, found))
    reader.start()
    try:
        with path.open("rb") as file, ours:
            asyncio.run(Sender().send(ours, Piece(file, begin, end)))
    finally:
        reader.join()
        theirs.close()
    return bytes(found)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shard"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("reason", [None, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize(("begin", "end"), [(0, len(CONTENT)), (1000, len(CONTENT) - 1), (7, 8)])
def test_a_file_is_sent_from_any_file_system(
    path: Path, monkeypatch: pytest.MonkeyPatch, reason: int | None, begin: int, end: int
) -> None:
    """With `sendfile`, or by reading where the kernel says that it cannot."""

    def refuse(*_: object) -> int:
        raise OSError(reason, "not here")

    if reason:
        monkeypatch.setattr(os, "sendfile", refuse)
    assert sent(path, begin, end) == CONTENT[begin:end]


@pytest.mark.parametrize("is_read", [False, True])
def test_a_file_that_has_become_shorter_is_no_whole_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    """Either way the client's connection is broken off."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "not here")

    if is_read:
        monkeypatch.setattr(os, "sendfile", refuse)
    with pytest.raises(OSError, match="shorter"):
        sent(path, 0, len(CONTENT) + 1)


def test_another_error_is_none_of_the_file_systems(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is not read again in another way."""

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(os, "sendfile", fail)
    with pytest.raises(OSError, match="the disk"):
        sent(path, 0, 10)
