"""The name of a gateway in Redis outlives it where its record does."""

from pathlib import Path

import pytest

from gateway.api.errors import ConfigError
from gateway.limits.redis_identity import FILE, identity_of

ONE, OTHER = "1" * 32, "2" * 32


def test_the_first_name_stays(tmp_path: Path) -> None:
    assert (identity_of(tmp_path, ONE), identity_of(tmp_path, OTHER)) == (ONE, ONE)


def test_an_empty_name_is_none(tmp_path: Path) -> None:
    """The host went down while it was written."""
    (tmp_path / FILE).touch()
    assert (identity_of(tmp_path, ONE), identity_of(tmp_path, OTHER)) == (ONE, ONE)


def test_without_a_state_directory_there_is_no_record_either(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert identity_of(tmp_path / "file" / "none", ONE) == ONE


@pytest.mark.parametrize("content", [b"1" * 31, b"\xff" * 32])
def test_a_damaged_name_is_told(tmp_path: Path, content: bytes) -> None:
    """With what to do: a new one at once would count the month twice."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ConfigError, match="remove it"):
        identity_of(tmp_path, ONE)
