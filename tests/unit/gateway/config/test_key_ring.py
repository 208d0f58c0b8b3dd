"""The keys in force: who passes, what a change of the file does, and how many names metrics get to know."""

import errno
import os
import time
from pathlib import Path

import pytest

from gateway.api.errors import ConfigError, InvalidApiKey
from gateway.config import key_file
from gateway.config.api_keys import ANYONE, Priority, hash_key
from gateway.config.key_ring import MAX_LABELS, KeyRing
from gateway.config.model_options import Models, Options

MODELS = Models({"alpha": Options()}, {})
DIGEST = hash_key(b"sk-octet-mine")
NEW_YEAR = 1798761600.0  # 2027-01-01T00:00:00Z


def bearer(*keys: str) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), *((b"authorization", f"Bearer {key}".encode()) for key in keys)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key file with one key."""
    path = tmp_path / "keys"
    path.write_text(f"sha256:{DIGEST} somebody\n")
    return path


def entry(key: str, more: str = "") -> str:
    """An entry of the YAML form, named as its key."""
    return f"  {key}: {{sha256: [{hash_key(key.encode())}]{more}}}\n"


def write_later(file: Path, text: str) -> None:
    """Writes the file, and makes sure that its time of change is another: a test is faster than the clock's tick."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(before + 1, before + 1))


def test_a_file_without_a_key_is_an_error_at_start(file: Path) -> None:
    """An empty file would lock everybody out: the gateway does not start with it, and says the remedy."""
    for text in ("# nobody yet\n", "keys: {}\n", "keys:\n" + entry("a", ", revoked: 2026-01-01")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"keys holds no key.*make key"):
            KeyRing(file, MODELS)


def test_an_accepted_key_passes_with_its_name(file: Path) -> None:
    """The request's handler gets who it is."""
    key = KeyRing(file, MODELS).find(bearer("sk-octet-mine"))
    assert (key.name, key.label, key.models) == ("somebody", "somebody", None)


@pytest.mark.parametrize("sent", ["", "x", "sk-octet-min", DIGEST, f"sha256:{DIGEST}"])
def test_anything_else_is_refused(file: Path, sent: str) -> None:
    """No key, another key, and the digest itself."""
    with pytest.raises(InvalidApiKey):
        KeyRing(file, MODELS).find(bearer(sent))


def test_without_a_file_anyone_passes(file: Path) -> None:
    """No header is refused where there is a file, and passes where there is none."""
    assert KeyRing(None, MODELS).find([]) is ANYONE
    assert KeyRing(None, MODELS).has_changed() is False
    with pytest.raises(InvalidApiKey, match="No API key was sent"):
        KeyRing(file, MODELS).find([])


def test_what_an_entry_says_decides_and_a_clock_may_jump(file: Path) -> None:
    """A key that is not valid is refused with the reason, and counts again when the clock says so."""
    file.write_text(
        "keys:\n" + entry("late", ", expires: 2026-12-31") + entry("early", ", not_before: 2027-01-01")
        + entry("gone", ", revoked: 2026-01-01") + entry("good")
    )  # fmt: skip
    now = [NEW_YEAR]
    ring = KeyRing(file, MODELS, lambda: now[0])
    for sent, why in (("late", "expired at 2026-12-31T23:59:59Z"), ("gone", "was revoked")):
        with pytest.raises(InvalidApiKey, match=why):
            ring.find(bearer(sent))
    assert ring.find(bearer("early")).name == "early"
    now[0] -= 86400 * 365
    assert ring.find(bearer("late")).name == "late"
    with pytest.raises(InvalidApiKey, match="not valid before 2027-01-01T00:00:00Z"):
        ring.find(bearer("early"))
    for moment in (-1e300, 0.0, 1e300):
        now[0] = moment
        assert ring.find(bearer("good")).name == "good"


def test_of_several_keys_the_accepted_one_counts(file: Path) -> None:
    """A refused one beside it does not, and without an accepted one its holder is told of that."""
    file.write_text("keys:\n" + entry("late", ", expires: 2026-12-31") + entry("good"))
    ring = KeyRing(file, MODELS, lambda: NEW_YEAR)
    assert ring.find(bearer("late", "foreign", "good")).name == "good"
    with pytest.raises(InvalidApiKey, match="expired"):
        ring.find(bearer("foreign", "late"))


def test_two_accepted_keys_of_different_names_are_refused(file: Path) -> None:
    """Whose rights count could not be told. Two keys of one name are one, as while a key is being replaced."""
    digests = f"sha256: [{hash_key(b'old')}, {hash_key(b'new')}]"
    file.write_text(
        f"keys:\n  twice: {{{digests}}}\n" + entry("second") + entry("late", ", expires: 2026-12-31")
    )
    ring = KeyRing(file, MODELS, lambda: NEW_YEAR)
    assert ring.find(bearer("old", "new", "old")).name == "twice"
    assert ring.find(bearer("late", "foreign", "second")).name == "second"
    for sent in (("old", "second"), ("second", "late", "new")):
        with pytest.raises(InvalidApiKey, match=r"Two API keys were sent, of '\w+' and '\w+': send one"):
            ring.find([*bearer(*sent[:-1]), (b"x-api-key", sent[-1].encode())])


def test_a_key_that_was_accepted_is_looked_up_again_if_it_may_have_changed(file: Path) -> None:
    """The same object while the file is the same and the key valid; else what the file and the clock say now."""
    file.write_text("keys:\n" + entry("late", ", expires: 2026-12-31") + entry("good"))
    now = [NEW_YEAR - 10]
    ring = KeyRing(file, MODELS, lambda: now[0])
    late, good = (ring.find(bearer(name)) for name in ("late", "good"))
    assert ring.renewed(late, bearer("late")) is late
    now[0] += 20
    with pytest.raises(InvalidApiKey, match="expired"):
        ring.renewed(late, bearer("late"))
    assert ring.renewed(good, bearer("good")) is good
    write_later(file, "keys:\n" + entry("good", ", models: [alpha]"))
    assert [ring.has_changed() for _ in range(2)] == [False, True]
    assert ring.read() is True
    assert ring.renewed(good, bearer("good")).models == {"alpha"}
    write_later(file, "keys:\n" + entry("second"))
    assert [ring.has_changed() for _ in range(2)] == [False, True]
    assert ring.read() is True
    with pytest.raises(InvalidApiKey, match="unknown"):
        ring.renewed(good, bearer("good"))
    assert KeyRing(None, MODELS).renewed(ANYONE, []) is ANYONE


def test_a_changed_file_counts_once_it_stands_still(file: Path) -> None:
    """A file that differs from look to look is being written; then it is read once."""
    ring = KeyRing(file, MODELS)
    assert ring.has_changed() is False
    for text in ("", f"sha256:{hash_key(b'new')}\n"):
        write_later(file, text)
        assert ring.has_changed() is False
    assert ring.has_changed() is True
    assert ring.read() is True
    assert ring.has_changed() is False
    assert ring.find(bearer("new")).name == "unnamed"
    with pytest.raises(InvalidApiKey):
        ring.find(bearer("sk-octet-mine"))


def test_a_file_that_another_replaces_counts(file: Path) -> None:
    """Of the same size and time, too."""
    ring = KeyRing(file, MODELS)
    status = file.stat()
    other = file.with_name("other")
    other.write_text(f"sha256:{hash_key(b'new')} somebody\n")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(file)
    assert [ring.has_changed() for _ in range(2)] == [False, True]


def test_the_same_size_and_time_hide_no_change(file: Path) -> None:
    """As `cp -p` and some editors leave them: the kernel's own time of change tells."""
    ring = KeyRing(file, MODELS)
    status = file.stat()
    deadline = time.monotonic() + 40
    while file.stat().st_ctime_ns == status.st_ctime_ns and time.monotonic() < deadline:
        file.write_text(f"sha256:{hash_key(b'new')} somebody\n")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert [ring.has_changed() for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    "text", ["# nobody\nkeys: {}\n", "keys: { }  # nobody\n", "keys:\n" + entry("a", ", revoked: 2026-01-01")]
)
def test_a_file_that_says_so_takes_the_last_key_back(file: Path, text: str) -> None:
    """At run time it is obeyed: nobody passes."""
    ring = KeyRing(file, MODELS)
    write_later(file, text)
    assert [ring.has_changed() for _ in range(2)] == [False, True]
    assert ring.read() is True
    with pytest.raises(InvalidApiKey):
        ring.find(bearer("sk-octet-mine"))


def test_a_file_that_changes_while_it_is_read_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read may be half of it, so it does not count."""
    ring = KeyRing(file, MODELS)
    new = f"sha256:{hash_key(b'new')}\n"
    write_later(file, new + f"sha256:{DIGEST}\n")
    assert [ring.has_changed() for _ in range(2)] == [False, True]

    def half(path: Path) -> str:
        write_later(path, new)
        return "keys: {}\n"

    with monkeypatch.context() as patch:
        patch.setattr(key_file, "text_of", half)
        assert ring.read() is False
    assert ring.find(bearer("sk-octet-mine")).name == "somebody"
    assert [ring.has_changed() for _ in range(2)] == [False, True]
    assert ring.read() is True
    assert ring.find(bearer("new")).name == "unnamed"


@pytest.mark.parametrize("text", ["?\n", "", "# cut\n", "keys:\n"])
def test_a_wrong_file_leaves_the_keys_in_force(file: Path, text: str) -> None:
    """It is an error, once, and the keys read before stay; so it is with one that was cut off before its first key."""
    ring = KeyRing(file, MODELS)
    file.write_text(text)
    assert [ring.has_changed() for _ in range(2)] == [False, True]
    with pytest.raises(ConfigError, match=r"keys:1 is not|write `keys: \{\}`$"):
        ring.read()
    assert [ring.has_changed() for _ in range(3)] == [False] * 3
    assert ring.find(bearer("sk-octet-mine")).name == "somebody"


def test_a_file_that_cannot_be_read_is_tried_at_each_look(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passing fault must not keep a revoked key in force; it is news once, and again after the file has changed."""
    ring = KeyRing(file, MODELS)
    write_later(file, f"sha256:{hash_key(b'new')}\n")
    assert [ring.has_changed() for _ in range(2)] == [False, True]

    def fail(path: Path, mode: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        for is_news in (True, False):
            with pytest.raises(ConfigError, match="Input/output error") as caught:
                ring.read()
            assert ring.is_news(str(caught.value)) is is_news
            assert ring.has_changed() is True
    assert ring.is_news("another fault") is True
    assert ring.read() is True
    assert ring.has_changed() is False
    assert ring.is_news("another fault") is True
    with pytest.raises(InvalidApiKey):
        ring.find(bearer("sk-octet-mine"))


def test_a_file_that_is_gone_is_read_when_it_is_back(file: Path) -> None:
    """Meanwhile the keys stay."""
    ring = KeyRing(file, MODELS)
    file.unlink()
    assert [ring.has_changed() for _ in range(2)] == [False, True]
    with pytest.raises(ConfigError, match="No such file"):
        ring.read()
    assert ring.find(bearer("sk-octet-mine")).name == "somebody"
    file.write_text(f"sha256:{DIGEST} back\n")
    assert [ring.has_changed() for _ in range(2)] == [False, True]
    assert ring.read() is True
    assert ring.find(bearer("sk-octet-mine")).name == "back"


def test_another_mode_counts(file: Path) -> None:
    """After `keys_unreadable` an operator mends mode or owner, which changes no byte."""
    ring = KeyRing(file, MODELS)
    before = file.stat().st_ctime_ns
    deadline = time.monotonic() + 40
    while file.stat().st_ctime_ns == before and time.monotonic() < deadline:
        file.chmod(0o640)
    assert [ring.has_changed() for _ in range(2)] == [False, True]


def test_names_in_metrics_are_bounded(file: Path) -> None:
    """The first names of a process have a label of their own, for its life; whatever comes later is `other`."""
    names = [f"k{number}" for number in range(MAX_LABELS + 10)]
    file.write_text("keys:\n" + "".join(map(entry, names)))
    ring = KeyRing(file, MODELS)
    labels = [ring.find(bearer(name)).label for name in names]
    assert labels == names[:MAX_LABELS] + ["other"] * 10
    write_later(file, "keys:\n" + "".join(map(entry, ["new", *reversed(names)])))
    assert [ring.has_changed() for _ in range(2)] == [False, True]
    assert ring.read() is True
    assert [ring.find(bearer(name)).label for name in names] == labels
    assert ring.find(bearer("new")).label == "other"


def test_revoked_keys_take_no_names_in_metrics(file: Path) -> None:
    """They have no requests; the first keys of the file that are in use get the names."""
    gone = "".join(entry(f"gone{number}", ", revoked: 2026-01-01") for number in range(MAX_LABELS))
    file.write_text("keys:\n" + gone + entry("good"))
    assert KeyRing(file, MODELS).find(bearer("good")).label == "good"


def test_a_key_revoked_at_the_beginning_of_time_is_told_as_revoked(file: Path) -> None:
    """Zero seconds are a moment like any other."""
    file.write_text("keys:\n" + entry("gone", ", revoked: 1970-01-01") + entry("good"))
    with pytest.raises(InvalidApiKey, match="was revoked at 1970-01-01T00:00:00Z"):
        KeyRing(file, MODELS).find(bearer("gone"))


def test_each_key_has_a_salt_that_outlives_a_rotation(file: Path) -> None:
    """Both digests of a key have one, of the older; no two keys have the same. vLLM takes its characters."""
    both = f"  two: {{sha256: [{hash_key(b'new')}, {hash_key(b'old')}]}}\n"
    file.write_text("keys:\n" + entry("a") + entry("b") + both)
    ring = KeyRing(file, MODELS)
    salts = {name: ring.find(bearer(name)).salt for name in ("a", "b", "new", "old")}
    assert len(set(salts.values())) == 3
    assert salts["new"] == salts["old"]
    assert all(len(salt) == 43 and not set(salt) & set(b'@/\\\0"') for salt in salts.values())
    file.write_text("keys:\n" + f"  two: {{sha256: [{hash_key(b'old')}]}}\n")
    assert KeyRing(file, MODELS).find(bearer("old")).salt == salts["old"]
    assert KeyRing(file, MODELS, salts=False).find(bearer("old")).salt == b""


def test_the_classes_of_keys_that_may_come(file: Path) -> None:
    """Those of revoked keys are none; without a key file there are none."""
    write_later(file, "keys:\n" + entry("a") + entry("b", ", priority: bulk, revoked: 2026-01-01"))
    ring = KeyRing(file, MODELS)
    assert ring.classes == {Priority.NORMAL}
    write_later(file, "keys:\n" + entry("a", ", priority: interactive") + entry("b", ", priority: bulk"))
    assert ring.has_changed() is False
    assert ring.has_changed()
    assert ring.read()
    assert ring.classes == {Priority.INTERACTIVE, Priority.BULK}
    assert KeyRing(None, MODELS).classes == frozenset()
