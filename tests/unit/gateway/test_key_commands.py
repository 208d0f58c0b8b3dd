"""`python -m gateway keys`: what each command prints and writes, and what it refuses."""

import re
from pathlib import Path

import pytest

from gateway.api.errors import ConfigError
from gateway.config import key_edit, key_file
from gateway.config.api_keys import ApiKey, Limits, Priority, hash_key
from gateway.config.catalog import load_catalog
from gateway.config.key_file import Entry
from gateway.config.model_options import load_models
from gateway.config.settings import Settings
from gateway.key_commands import main, printable

ROOT = Path(__file__).resolve().parents[3]
OLD = hash_key(b"old")


class Host:
    """A host with our cards and a key file, whose commands it runs."""

    def __init__(self, file: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self.settings = Settings(cards_dir=ROOT / "docker", api_keys_file=file)
        self._capture = capture

    def run(self, *words: str) -> str:
        """What a command prints on standard output."""
        assert main(words, self.settings) == 0
        return self._capture.readouterr().out

    def new_key(self, *words: str) -> str:
        """The digest of the key that a command prints."""
        printed = self.run(*words)
        assert re.fullmatch(r"sk-octet-[A-Za-z0-9_-]{43}\n", printed)
        assert printed.strip() not in self.file.read_text()
        return hash_key(printed.strip().encode())

    def entries(self) -> tuple[Entry, ...]:
        return key_file.read(self.file, load_models(self.settings, load_catalog(self.settings.cards_dir)))


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path / "keys", capsys)


def test_a_key_with_all_rights_there_are(host: Host) -> None:
    """Its hash and rights are in the file, and it is printed once."""
    digest = host.new_key(
        "add", "team-a", "--models", "qwen3-0.6b, step3p5-flash", "--rpm=60", "--tpm-in=1000", "--tpm-out=500",
        "--concurrency=4", "--monthly-tokens=1000000", "--priority=bulk", "--weight=3", "--not-before=2026-12-01",
        "--expires=2100-12-31", "--admin=1",
    )  # fmt: skip
    models = frozenset({"qwen3-0.6b", "step3p5-flash"})
    limits = Limits(60, 1000, 500, 4, 1_000_000)
    key = ApiKey("team-a", "", models, limits, Priority.BULK, True, 1796083200.0, 4133980799.999999, weight=3)
    assert host.entries() == (Entry(key, (digest,)),)


def test_what_make_leaves_empty_is_not_said(host: Host) -> None:
    """A key without rights of its own may do anything; the file has its hash alone."""
    empty = [
        f"--{name}="
        for name in ("models", "rpm", "tpm-in", "priority", "weight", "not-before", "expires", "admin")
    ]
    digest = host.new_key("add", "all", *empty)
    assert host.entries() == (Entry(ApiKey("all"), (digest,)),)
    assert host.file.read_text().endswith(f'keys:\n  all:\n    sha256: ["{digest}"]\n')


def test_a_key_is_replaced_in_two_steps(host: Host) -> None:
    """After a rotation both work; of three the oldest goes."""
    digests = [host.new_key("add", "a"), host.new_key("rotate", "a"), host.new_key("rotate", "a")]
    assert host.entries()[0].digests == (digests[2], digests[1])


def test_a_revoked_key_stays_in_the_list_and_its_name_is_taken(host: Host) -> None:
    """It can be neither replaced nor made again, nor revoked twice."""
    host.new_key("add", "a")
    assert host.run("revoke", "a") == ""
    assert host.entries()[0].key.revoked
    before = host.file.read_text()
    for words, told in {
        ("add", "a"): "a is there already: take another name, or make key-rotate",
        ("rotate", "a"): "a is revoked: make a key of another name",
        ("revoke", "a"): "a is revoked already",
        ("revoke", "b"): "has no key named 'b'; it has a",
    }.items():
        with pytest.raises(ConfigError, match=told):
            host.run(*words)
    assert host.file.read_text() == before


def test_the_list_shows_rights_and_no_more_of_a_hash_than_tells_it_apart(host: Host) -> None:
    """One line a key, of either form."""
    host.file.write_text(
        f"keys:\n  gone: {{sha256: [{OLD}], revoked: 2026-01-01, priority: interactive}}\n"
        f"  late: {{sha256: [{hash_key(b'1')}, {hash_key(b'2')}], expires: 2026-01-01, models: [qwen3-0.6b]}}\n"
        f"  soon: {{sha256: [{hash_key(b'3')}], not_before: 2100-01-01, limits: {{rpm: 5, tpm_in: 6}}, weight: 7, "
        "admin: true}\n"
    )
    assert [re.split("  +", line) for line in host.run("list").splitlines()] == [
        ["NAME", "STATE", "MODELS", "LIMITS", "PRIORITY", "WEIGHT", "ADMIN", "NOT BEFORE", "EXPIRES", "DIGESTS"],
        ["gone", "revoked", "all", "none", "interactive", "1", "no", "-", "-", OLD[:8]],
        ["late", "expired", "qwen3-0.6b", "none", "normal", "1", "no", "-", "2026-01-01T23:59:59Z",
         f"{hash_key(b'1')[:8]} {hash_key(b'2')[:8]}"],
        ["soon", "not yet valid", "all", "rpm=5 tpm_in=6", "normal", "7", "yes", "2100-01-01T00:00:00Z", "-",
         hash_key(b"3")[:8]],
    ]  # fmt: skip
    host.file.write_text(f"sha256:{OLD} Ann B.\n")
    assert re.split("  +", host.run("list").splitlines()[1])[:2] == ["Ann B.", "valid"]


def test_the_last_day_there_is(host: Host) -> None:
    """Its end is no moment of year 10000, which could not be told."""
    host.new_key("add", "a", "--expires=9999-12-31")
    assert " 9999-12-31T23:59:59Z " in host.run("list")
    host.file.write_text(f"keys: {{a: {{sha256: [{OLD}], expires: 9999-12-31T23:59:59.999999Z}}}}")
    assert " 9999-12-31T23:59:59Z " in host.run("list")


def test_names_of_any_kind_are_listed_in_cells_of_their_own() -> None:
    """What would move a terminal's cursor is written out, and a long one is cut."""
    assert printable("Zoë 张 B.") == "Zoë 张 B."
    assert printable("a\x1b[2Jb\tc\u202ed") == "a\\x1b[2Jb\\tc\\u202ed"
    assert printable("x" * 64) == "x" * 64
    assert printable("x" * 500) == "x" * 61 + "..."


def test_an_expired_key_is_not_replaced(host: Host) -> None:
    """The new key would be as expired."""
    host.file.write_text(text := f"keys:\n  a: {{sha256: [{OLD}], expires: 2026-01-01}}\n")
    with pytest.raises(ConfigError, match="a is expired, and so would be another key"):
        host.run("rotate", "a")
    assert host.file.read_text() == text


def test_a_key_that_says_it_is_not_revoked_is_revoked(host: Host) -> None:
    """`revoked: null` is valid."""
    host.file.write_text(f"keys:\n  a:\n    sha256: [{OLD}]\n    revoked: null\n")
    host.run("revoke", "a")
    assert host.entries()[0].key.revoked


def test_what_does_not_come_out_as_meant_is_not_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that changed nothing of the key would say that it is revoked."""
    host.file.write_text(text := f"keys:\n  a: {{sha256: [{OLD}]}}\n")
    monkeypatch.setattr(key_edit, "with_revoked", lambda text, *_: text)
    with pytest.raises(ConfigError, match="cannot change: edit it by hand"):
        host.run("revoke", "a")
    assert host.file.read_text() == text


REFUSED = {
    ("add", ""): "whose key",
    ("add", "a b"): "a name is at most 64 letters",
    ("add", "{"): "a name is at most 64 letters",
    ("add", "other"): "metrics use this name",
    ("add", "a", "--models=nope"): "'nope' is no model or alias; it must be one of",
    ("add", "a", "--rpm=0"): "keys.a.limits.rpm: Input should be greater than 0",
    ("add", "a", "--rpm=9999999999999999"): "keys.a.limits.rpm: Input should be less than",
    ("add", "a", "--weight=0"): "keys.a.weight: Input should be greater than 0",
    ("add", "a", "--weight=1001"): "keys.a.weight: Input should be less than or equal to 1000",
    ("add", "a", "--priority=high"): "Input should be 'interactive', 'normal' or 'bulk'",
    ("add", "a", "--expires=2026-01-01"): "EXPIRES=2026-01-01 is past: the key would never be valid",
    ("add", "a", "--expires=soon"): "keys.a.expires: must be a date, such as 2027-06-30",
    ("add", "a", "--expires=2100-01-01\n    admin: true"): "keys.a.expires: must be a date",
    ("add", "a", "--expires=2100-01-01", "--not-before=2100-02-01"): "is not after not_before",
    ("rotate", "a"): "has no key named 'a'; it has none",
    ("revoke", "a"): "has no key named 'a'; it has none",
    ("list",): "No such file",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_the_reader_refuses_is_not_written(host: Host, words: tuple[str, ...]) -> None:
    """Nor is a file made, or a key shown."""
    with pytest.raises(ConfigError, match=re.escape(REFUSED[words])):
        host.run(*words)
    assert not host.file.exists()


@pytest.mark.parametrize(
    "words", [("add", "a", "--rpm=many"), ("add", "a", "--admin=yes"), ("make", "a"), ()]
)
def test_words_that_are_none_of_a_command(host: Host, words: tuple[str, ...]) -> None:
    """The exit code is that of all wrong configuration."""
    with pytest.raises(SystemExit) as ended:
        host.run(*words)
    assert ended.value.code == 2
    assert not host.file.exists()


@pytest.mark.parametrize("words", [("add", "b"), ("rotate", "a"), ("revoke", "a")])
def test_a_file_that_is_wrong_or_has_one_key_a_line_is_left_alone(host: Host, words: tuple[str, ...]) -> None:
    """What a command would write could lose what stands there."""
    for text, told in {
        f"sha256:{OLD} a\n": "has one key a line, which are changed by hand",
        "sha256:short\n": r"keys:1 is not `sha256:",
        "keys: {a: {}}\n": r"keys.a.sha256: must be",
        f"keys:\n  a: {{sha256: [{OLD}], models: [gone]}}\n": "'gone' is no model",
    }.items():
        host.file.write_text(text)
        with pytest.raises(ConfigError, match=told):
            host.run(*words)
        assert host.file.read_text() == text


def test_without_a_key_file_the_setting_is_named(host: Host) -> None:
    """There is no place to write to."""
    with pytest.raises(ConfigError, match="set GATEWAY_API_KEYS_FILE"):
        main(["list"], Settings(cards_dir=ROOT / "docker"))
