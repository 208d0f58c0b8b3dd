"""Files as this package reads them: regular ones, within a size, and of YAML and JSON only what it needs.

YAML has more than that: aliases multiply a few lines into gigabytes, tags make objects, nesting has no end, and a
number may have more digits than Python converts. None of it is in a card, so none of it is taken.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

_DEEPEST = 20
_LONGEST_NUMBER = 30


def read(path: Path, most_bytes: int, *, follow: bool = False) -> bytes:
    """The content of a regular file; a link is followed only where the caller's own files are meant. Raises OSError."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with open(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes} bytes", str(path))
    return content


def parse_json(content: bytes) -> dict[str, Any]:
    """An object. Raises ValueError, whatever is wrong."""
    try:
        found = json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def parse_yaml(content: bytes) -> object:
    """Raises ValueError with one line that says what is wrong and where."""
    try:
        return yaml.load(content.decode(), _Loader)  # noqa: S506 - a SafeLoader that takes less
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Loader(yaml.SafeLoader):
    """Plain YAML: mappings, lists, texts, numbers, truth values and dates."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One value and all within it."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused(event, "anchors and aliases are not taken")
        if getattr(event, "tag", None):
            raise _refused(event, "tags are not taken")
        if self._depth >= _DEEPEST:
            raise _refused(event, f"it is nested more than {_DEEPEST} deep")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """What looks like a number or a date and is none that can be had stays a text, which its fact refuses."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep=deep)
        if len(node.value) > _LONGEST_NUMBER and node.tag.endswith((":int", ":float")):
            return node.value
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError):
            return node.value


def _refused(event: yaml.Event, reason: str) -> yaml.YAMLError:
    where = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
    return yaml.YAMLError(where + reason)
