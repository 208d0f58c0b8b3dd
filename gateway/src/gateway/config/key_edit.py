"""Change the text of a key file in its YAML form, for `make key` and its like: only the bytes that must change do, so
that comments and whatever else an operator wrote stay. Pure, but for `locked`, which holds the file meanwhile."""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from gateway.api.errors import ConfigError
from gateway.config import yaml_file
from gateway.config.key_file import MAX_BYTES, SETTING, is_yaml

MODE = 0o640  # of a file that is made here; one that is there keeps its own, and its owner
INDENT = 2
CANNOT_RESERVE = (
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENODEV,
)  # a file system without fallocate
HEADER = "# Who may use the gateway; `make key` adds to it, and docs/configuration.md explains it.\nkeys:\n"


class File:
    """A key file that is open and locked, so that no two commands change it at once."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        content = os.pread(descriptor, MAX_BYTES + 1, 0)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes")
        self.text = content.decode()
        self.check_name()

    def check_name(self) -> None:
        """Raise ConfigError if the path no longer leads to this file: what is written would be stored nowhere."""
        try:
            mine, named = os.fstat(self._descriptor), self.path.stat()
            if named.st_nlink and os.path.samestat(mine, named):
                return
        except FileNotFoundError:
            pass  # told as one that was replaced
        raise ConfigError(f"{self.path} was removed or replaced meanwhile: run the command again")

    def write(self, text: str) -> None:
        """Replace the content in the file itself. Docker mounts the file, so the gateway would go on reading the old
        one if another took its name. It waits until a file stands still, and so reads no half of this. What cannot
        be written whole, as on a full disk, leaves the old content."""
        content = text.encode()
        if len(text) > yaml_file.MAX_BYTES:
            raise ConfigError(
                f"{self.path} would be larger than {yaml_file.MAX_BYTES} bytes: take out keys that are no longer used"
            )
        try:
            reserve(self._descriptor, len(content))
            overwrite(self._descriptor, content)
        except BaseException:
            overwrite(self._descriptor, self.text.encode())
            raise
        self.check_name()


def reserve(descriptor: int, size: int) -> None:
    """Take the space for a file's new content before its first byte is written, where the file system can."""
    if not size:
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in CANNOT_RESERVE:
            raise


def overwrite(descriptor: int, content: bytes) -> None:
    """Make this the whole content of a file."""
    at = 0
    while at < len(content):
        at += os.pwrite(descriptor, content[at:], at)
    os.ftruncate(descriptor, len(content))
    os.fsync(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[File]:
    """Yield the key file, locked. An empty one is made if there is none, and stays whatever comes: another command may
    wait for its lock, to write into it. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield File(path, descriptor)
        finally:
            os.close(descriptor)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{SETTING}={path} cannot be changed: {error}") from error


def with_entry(text: str, name: str, fields: Mapping[str, object]) -> str:
    """Return the text with one more key at its end."""
    if not is_yaml(text):
        text += ("" if text.endswith("\n") or not text else "\n") + HEADER
    keys = member(yaml.compose(text, yaml.SafeLoader), "keys")
    assert keys is not None
    indent = INDENT
    if isinstance(keys, yaml.MappingNode) and keys.value:
        if keys.flow_style:
            raise ConfigError(
                "its keys stand in braces: write each on lines of its own, as docs/configuration.md shows"
            )
        indent = keys.value[0][0].start_mark.column
    else:
        text = text[: keys.start_mark.index] + text[keys.end_mark.index :]  # {} or null
    lines = [f"{word(name)}:", *(f"  {field}: {json.dumps(value)}" for field, value in fields.items())]
    return text.rstrip("\n") + "\n" + "".join(f"{' ' * indent}{line}\n" for line in lines)


def with_digest(text: str, name: str, digest: str) -> str:
    """Return the text with a new digest for the key `name`, before the one or two that it has; of two the last goes."""
    digests = member(entry(text, name), "sha256")
    assert isinstance(digests, yaml.SequenceNode)
    first, *others = digests.value
    start, end = first.start_mark.index, first.end_mark.index
    if not others:
        between = ", " if digests.flow_style else f"\n{' ' * digests.start_mark.column}- "
        return f"{text[:start]}{json.dumps(digest)}{between}{text[start:]}"
    second = others[0]
    middle, rest = text[end : second.start_mark.index], text[second.end_mark.index :]
    return f"{text[:start]}{json.dumps(digest)}{middle}{json.dumps(first.value)}{rest}"


def with_revoked(text: str, name: str, when: str) -> str:
    """Return the text with the key `name` revoked."""
    found = entry(text, name)
    present = member(found, "revoked")  # as null
    if present is not None:
        start, end = present.start_mark.index, present.end_mark.index
        return f"{text[:start].rstrip(' ')} {json.dumps(when)}{text[end:]}"
    first = found.value[0][0].start_mark
    rest = ", " if found.flow_style else "\n" + " " * first.column
    return f"{text[: first.index]}revoked: {json.dumps(when)}{rest}{text[first.index :]}"


def entry(text: str, name: str) -> yaml.MappingNode:
    """Return the node of the key `name`, which a text that was parsed before has."""
    found = member(member(yaml.compose(text, yaml.SafeLoader), "keys"), name)
    assert isinstance(found, yaml.MappingNode)
    return found


def member(node: yaml.Node | None, name: str) -> yaml.Node | None:
    """Return the value of a mapping's key, or None."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def word(name: str) -> str:
    """Return a name as a key of YAML: in quotes if it would be a number, a date or a truth value without."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", name) and yaml.safe_load(name) == name
    return name if is_plain else json.dumps(name)
