"""Reads regular files up to a size; parses JSON (READY.json, holders of GPU locks) and YAML as far as cards need it.
The rest of YAML is refused: aliases, which turn a few lines into gigabytes, tags, which make objects, deep nesting, and
numbers with more digits than Python converts."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

_MAX_DEPTH = 20  # of mappings and lists in YAML; a card has 4
_MAX_NUMBER = 30  # characters of a number in YAML


def read(path: Path, most_bytes: int, *, follow: bool = False) -> bytes:
    """Return the content of a regular file. Raises OSError, also if it is larger than `most_bytes`, and for a link
    unless `follow`: on a volume, unlike among the operator's cards, a link may have been set by another container."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with open(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        content = file.read(most_bytes + 1)  # one more shows that it is larger
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes} bytes", str(path))
    return content


def parse_json(content: bytes) -> dict[str, Any]:
    """Return the JSON object in a file on a shared volume (READY.json, a GPU lock), which any container may have
    written. Raises ValueError for what is no JSON object, and for nesting too deep to be read."""
    try:
        found = json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def parse_yaml(content: bytes) -> object:
    """Return the value of card.yaml or serve.yaml. Raises ValueError with one line that says what is wrong where."""
    try:
        return yaml.load(content.decode(), _Loader)  # noqa: S506 - a SafeLoader that takes less
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Loader(yaml.SafeLoader):
    """Loads mappings, lists, texts, numbers, booleans and dates; refuses the rest of YAML."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one value with all that it contains; overrides PyYAML's method to refuse what is not plain."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused(event, "anchors and aliases are not taken")
        if getattr(event, "tag", None):
            raise _refused(event, "tags are not taken")
        if self._depth >= _MAX_DEPTH:
            raise _refused(event, f"it is nested more than {_MAX_DEPTH} deep")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """Convert a value (an override). An impossible number or date stays a text, which its fact's check refuses."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep=deep)
        if len(node.value) > _MAX_NUMBER and node.tag.endswith((":int", ":float")):
            return node.value
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError):
            return node.value


def _refused(event: yaml.Event, reason: str) -> yaml.YAMLError:
    """Return the error to raise for what `_Loader` does not take, with the line where it stands."""
    where = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
    return yaml.YAMLError(where + reason)
