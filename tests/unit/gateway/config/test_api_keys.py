"""API keys: what a key file may hold, what a request must carry."""

import os
from pathlib import Path

import pytest

from gateway.api.errors import ConfigError, InvalidApiKey
from gateway.config.api_keys import KeyRing, hash_key, new_key, parse_keys

DIGEST = hash_key(b"sk-octet-mine")


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), (b"authorization", key.encode())]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key file with one key."""
    path = tmp_path / "keys"
    path.write_text(f"sha256:{DIGEST} somebody\n")
    return path


def test_lines_comments_and_names() -> None:
    """A line is a digest and perhaps a name; comments and blank lines are passed over."""
    other = hash_key(b"other")
    assert parse_keys(f"# ours\n\nsha256:{DIGEST}\n  sha256:{other} Ann B.\n", Path("k")) == {DIGEST, other}


@pytest.mark.parametrize(
    "line", ["sk-octet-mine", f"sha256:{DIGEST[1:]}", f"sha256:{DIGEST.upper()}", f"md5:{DIGEST}"]
)
def test_a_wrong_line_is_named(line: str) -> None:
    """Anything else is an error that names the line, and does not repeat it: it may be a key."""
    with pytest.raises(ConfigError, match=r"^k:2 is not `sha256:<64 hex digits>") as caught:
        parse_keys(f"\n{line}\n", Path("k"))
    assert line not in str(caught.value)


def test_a_file_without_a_key_is_an_error_at_start(file: Path) -> None:
    """An empty file would lock everybody out: the gateway does not start with it, and says the remedy."""
    file.write_text("# nobody yet\n")
    with pytest.raises(ConfigError, match=r"keys holds no key.*make api-key"):
        KeyRing(file)


def test_emptying_the_file_takes_the_last_key_back(file: Path) -> None:
    """At run time a file without a key is obeyed: nobody passes."""
    ring = KeyRing(file)
    file.write_text("# taken back\n")
    assert ring.refresh() is True
    with pytest.raises(InvalidApiKey):
        ring.check(bearer("Bearer sk-octet-mine"))


@pytest.mark.parametrize("sent", ["Bearer sk-octet-mine", "bearer sk-octet-mine", "BEARER  sk-octet-mine "])
def test_an_accepted_key_passes(file: Path, sent: str) -> None:
    """The scheme's case and spaces around the key do not matter."""
    assert KeyRing(file).check(bearer(sent)) is None


@pytest.mark.parametrize(
    "sent", ["", "Bearer", "Bearer ", "Bearer x", "Basic sk-octet-mine", "sk-octet-mine", f"Bearer {DIGEST}"]
)
def test_anything_else_is_refused(file: Path, sent: str) -> None:
    """No key, another key, another scheme, and the digest itself."""
    with pytest.raises(InvalidApiKey):
        KeyRing(file).check(bearer(sent))


def test_without_a_header_or_a_file(file: Path) -> None:
    """No header is refused where there is a file, and passes where there is none."""
    assert KeyRing(None).check([]) is None
    with pytest.raises(InvalidApiKey):
        KeyRing(file).check([])


def test_a_changed_file_counts_at_the_next_look(file: Path) -> None:
    """A change is read once; an unchanged file is not read again."""
    ring = KeyRing(file)
    assert ring.refresh() is False
    file.write_text(f"sha256:{hash_key(b'new')}\n")
    os.utime(file, ns=(1, 1))
    assert (ring.refresh(), ring.refresh()) == (True, False)
    assert ring.check(bearer("Bearer new")) is None
    with pytest.raises(InvalidApiKey):
        ring.check(bearer("Bearer sk-octet-mine"))


@pytest.mark.parametrize("content", [b"?\n", b"\xff", None])
def test_a_spoilt_file_leaves_the_keys_in_force(file: Path, content: bytes | None) -> None:
    """A file that turns bad or vanishes is an error, and the keys read before stay."""
    ring = KeyRing(file)
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ConfigError):
        ring.refresh()
    assert ring.check(bearer("Bearer sk-octet-mine")) is None


def test_new_keys_differ_and_are_long() -> None:
    """A new key has 256 random bits under a prefix that secret scanners can know."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("sk-octet-") and len(key) == len("sk-octet-") + 43 for key in keys)
