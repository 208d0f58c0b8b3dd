"""The certificate's files, when they are read again: tests/integration/gateway/server/test_tls.py has the rest."""

from pathlib import Path

import pytest

from gateway.api.errors import ConfigError, NotNow
from gateway.config.certificate import Certificate
from tests.certificates import Authority

SECOND = 1 / 86400  # of a day


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def write(folder: Path, pair: tuple[bytes, bytes]) -> tuple[Path, Path]:
    """Writes certificate and key, and returns where."""
    paths = folder / "cert.pem", folder / "key.pem"
    for path, content in zip(paths, pair, strict=True):
        path.write_bytes(content)
    return paths


def read(certificate: Certificate) -> bool:
    """Looks until there is something to read."""
    assert any(certificate.has_changed() for _ in range(2))
    return certificate.read()


def test_a_pair_that_is_not_yet_valid_is_tried_again(tmp_path: Path, authority: Authority) -> None:
    """At every look, told once; one that is wrong in itself is not."""
    certificate = Certificate(*write(tmp_path, authority.issue()))
    before = certificate.context
    write(tmp_path, authority.issue(days=(600 * SECOND, 9)))
    for is_news in (True, False, False):
        with pytest.raises(NotNow, match="not valid yet") as caught:
            read(certificate)
        assert certificate.is_news(str(caught.value)) is is_news
    write(tmp_path, authority.issue(days=(-9, -1)))
    with pytest.raises(ConfigError, match="has expired"):
        read(certificate)
    assert [certificate.has_changed() for _ in range(3)] == [False] * 3
    assert certificate.context is before
    write(tmp_path, authority.issue())
    assert read(certificate) is True
    assert certificate.context is not before


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_cannot_be_read_is_tried_again(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """A passing fault ends by itself: the files need not change once more."""
    paths = write(tmp_path, authority.issue())
    certificate = Certificate(*paths)
    before = certificate.context
    write(tmp_path, authority.issue())
    opened = Path.open

    def broken(path: Path, mode: str) -> object:
        if path == paths[which]:
            raise OSError(5, "Input/output error")
        return opened(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken)
        for _ in range(2):
            with pytest.raises(NotNow, match="Input/output error"):
                read(certificate)
    assert read(certificate) is True
    assert certificate.context is not before


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_was_replaced_behind_its_mount_is_told(
    tmp_path: Path, authority: Authority, which: int
) -> None:
    """A container goes on seeing the file that was bound, which has no name any more. So is one that is held open."""
    paths = write(tmp_path, authority.issue())
    with paths[which].open() as file:
        bound = list(paths)
        bound[which] = Path(f"/proc/self/fd/{file.fileno()}")
        certificate = Certificate(*bound)
        before = certificate.context
        (tmp_path / "new").write_bytes(authority.issue()[which])
        (tmp_path / "new").rename(paths[which])
        with pytest.raises(NotNow, match=r"replaced by another file.*--force-recreate gateway"):
            read(certificate)
    assert certificate.context is before
