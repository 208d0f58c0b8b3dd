"""Read the operator's YAML files within bounds on size and depth. Whatever is wrong with one, the error is one line."""

from collections.abc import Hashable
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from gateway.api.errors import ConfigError, NotNow

MAX_BYTES = 256 * 1024  # of a file: PyYAML is slow, and these have a few KB
MAX_DEPTH = 20  # of mappings and lists in each other: PyYAML recurses, and would fail with a RecursionError
MAX_NUMBER_LENGTH = 30  # characters: Python takes long to read a number of very many digits, or fails


class Bounded(yaml.SafeLoader):
    """A YAML loader that refuses deep nesting. A number of too many digits stays text, which its reader refuses."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Check the next event before the library goes into it, and count the depth. PyYAML calls it for each node."""
        self.check_event_at_hand(self.peek_event())  # type: ignore[no-untyped-call]
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def check_event_at_hand(self, event: yaml.Event) -> None:
        """Raise YAMLError for tags and for nesting that is too deep. `Plain` adds a check here."""
        if self._depth >= MAX_DEPTH:
            raise refused(event, f"it is nested more than {MAX_DEPTH} deep")
        if getattr(event, "tag", None):  # PyYAML fails in ways of its own at a wrong value behind one
            raise refused(event, "tags are not taken")

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """Return a node's value, as PyYAML asks for it; a number of too many digits as text."""
        is_number = isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float"))
        if is_number and len(node.value) > MAX_NUMBER_LENGTH:
            return node.value
        return super().construct_object(node, deep=deep)


class Plain(Bounded):
    """The same without aliases, with which a few lines could stand for gigabytes: for cards, which need none."""

    def check_event_at_hand(self, event: yaml.Event) -> None:
        super().check_event_at_hand(event)
        if isinstance(event, yaml.AliasEvent):
            raise refused(event, "aliases are not taken")


class UniqueKeys(Bounded):
    """A YAML loader that refuses a repeated key; the library's step for mappings, extended here, takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r:.80} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def refused(event: yaml.Event, reason: str) -> yaml.YAMLError:
    """Return the error for a loader to raise: `reason`, with the event's line if it is known."""
    where = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
    return yaml.YAMLError(where + reason)


def read(path: Path, setting: str = "", max_bytes: int = MAX_BYTES) -> str:
    """Return a file's text. setting: the variable that names the file, for errors. Raises ConfigError; NotNow if its
    content is not to blame."""
    problem = f"{setting and setting + '='}{path} cannot be read"
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ConfigError(f"{problem}: it is larger than {max_bytes} bytes")
        return content.decode()
    except OSError as error:
        raise NotNow(f"{problem}: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{problem}: {error}") from error


def parse(text: str, path: Path, loader: type[Bounded]) -> object:
    """Parse a file's text. Raises ConfigError with one line that says what is wrong and where."""
    try:
        # From a stream: the errors of a text would quote it, and a key file may have a key in the wrong place.
        return yaml.load(StringIO(text), loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # such as a date that is none
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
