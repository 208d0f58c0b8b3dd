"""Changes single values in the text of a YAML file and leaves every other byte, comments included, as it is."""

from collections.abc import Mapping, Sequence

import yaml

Path = Sequence[str]


def put(text: str, values: Mapping[tuple[str, ...], str]) -> str:
    """`text` with each value replaced. Raises KeyError naming a path that the text lacks."""
    tree = yaml.compose(text, yaml.SafeLoader)
    found = [(_entry(tree, path)[1], value) for path, value in values.items()]
    for node, value in sorted(found, key=lambda pair: -pair[0].start_mark.index):
        text = text[: node.start_mark.index] + _spelt(value, node) + text[node.end_mark.index :]
    return text


def without(text: str, key: str) -> str:
    """`text` without the lines of a top-level key, where there is one, and without the comment right above it."""
    try:
        name, value = _entry(yaml.compose(text, yaml.SafeLoader), (key,))
    except KeyError:
        return text
    lines = text.splitlines(keepends=True)
    start, end = name.start_mark.line, _last(value).end_mark.line + 1
    while start and lines[start - 1].startswith("#"):
        start -= 1
    return "".join(lines[:start] + lines[end + (lines[end : end + 1] == ["\n"]) :])


def _entry(node: yaml.Node | None, path: Path) -> tuple[yaml.Node, yaml.Node]:
    """The nodes of a key and of its value, found from key to key."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if key.value == path[0]:
            return _entry(value, path[1:]) if path[1:] else (key, value)
    raise KeyError(path[0])


def _last(node: yaml.Node) -> yaml.Node:
    """The last scalar below a node of the block style, whose own end is where the next thing begins."""
    if not isinstance(node, yaml.MappingNode) or node.flow_style or not node.value:
        return node
    return _last(node.value[-1][1])


def _spelt(value: str, like: yaml.Node) -> str:
    return f'"{value}"' if isinstance(like, yaml.ScalarNode) and like.style == '"' else value
