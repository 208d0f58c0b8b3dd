"""The static list of workers: what it may say, and how the operator is told what it may not."""

from pathlib import Path

import pytest

from gateway.api.errors import ConfigError
from gateway.config.catalog import Catalog
from gateway.discovery.loop import load_static, parse_static

SLUGS = {"alpha", "beta"}


def test_lines_are_slugs_and_addresses() -> None:
    """Several lines of a slug are several workers, in order; comments and blank lines are passed over."""
    text = "# two nodes\nalpha http://10.0.0.1:8000\n\nbeta http://node-2.example:80/ # spare\nalpha http://10.0.0.2:8000\n"
    assert parse_static(text, Path("w"), SLUGS) == {
        "alpha": [("10.0.0.1", 8000), ("10.0.0.2", 8000)],
        "beta": [("node-2.example", 80)],
    }


@pytest.mark.parametrize("line", ["gamma http://h:1", "alpha", "alpha http://h:1 more"])
def test_a_wrong_line_is_named_with_the_slugs_there_are(line: str) -> None:
    """A line of another shape or of an undeclared slug is refused by its number."""
    with pytest.raises(ConfigError, match=r"^w:1 is not `<slug> http://host:port` .*\(alpha, beta\)$"):
        parse_static(line, Path("w"), SLUGS)


NO_ADDRESSES = [
    "h:1", "https://h:1", "http://h", "http://:1", "http://h:0", "http://h:65536", "http://h:\u00b2", "http://h/x:1",
    "http://a@h:1",
]  # fmt: skip


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_a_wrong_address_is_named(url: str) -> None:
    """An address is http, a host and a port that can exist, and nothing else."""
    with pytest.raises(ConfigError, match=r"^w:2: .* is not http://host:port$"):
        parse_static(f"\nalpha {url}", Path("w"), SLUGS)


def test_no_file_is_no_static_worker() -> None:
    """Without the setting there are none."""
    assert load_static(None, Catalog((), {})) == {}
