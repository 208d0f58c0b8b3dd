"""The key file: what its two forms may hold, and what the operator is told of a wrong one."""

import traceback
from pathlib import Path

import pytest

from gateway.api.errors import ConfigError
from gateway.config.api_keys import ApiKey, Limits, Priority, hash_key
from gateway.config.key_file import Entry, parse, read
from gateway.config.model_options import Alias, Models, Options

ONE, TWO, THREE = (hash_key(name) for name in (b"one", b"two", b"three"))
MODELS = Models(
    {"big": Options(), "small": Options()},
    {"fast": Alias(model="small"), "deep": Alias(model="big")},
)
K = Path("k")


def test_lines_comments_and_names() -> None:
    """A line is a digest and perhaps a name, with all rights; comments and blank lines are passed over."""
    text = f"# ours\n\nsha256:{ONE}\n  sha256:{TWO} Ann B.\n"
    assert parse(text, K, MODELS) == (
        Entry(ApiKey("unnamed"), (ONE,)),
        Entry(ApiKey("Ann B."), (TWO,)),
    )


def test_lines_of_one_name_are_one_key() -> None:
    """So is a key replaced, and a line that stands twice does no harm."""
    text = f"sha256:{ONE} ann\nsha256:{TWO} ann\nsha256:{ONE} ann\n"
    assert {entry.key for entry in parse(text, K, MODELS)} == {ApiKey("ann")}


@pytest.mark.parametrize(
    "line",
    ["sk-octet-mine", f"sha256:{ONE[1:]}", f"sha256:{ONE.upper()}", f"md5:{ONE}", "---", "version: 1"],
)
def test_a_wrong_line_is_named(line: str) -> None:
    """Anything else is an error that names the line, and does not repeat it: it may be a key."""
    with pytest.raises(ConfigError, match=r"^k:2 is not `sha256:<64 hex digits>") as caught:
        parse(f"\n{line}\nkeys:\n", K, MODELS)
    assert line not in str(caught.value)


def test_a_line_under_two_names_is_refused() -> None:
    """Nobody could say whose requests these are."""
    with pytest.raises(
        ConfigError, match=r"^k:3 is the key of line 1 under another name: remove one of them$"
    ):
        parse(f"sha256:{ONE} ann\n\nsha256:{ONE} bob\n", K, MODELS)


WHOLE = f"""
# teams
keys:
  team-a:  # two digests: it is being replaced
    sha256: [{ONE}, {TWO}]
    models: [big, fast]
    limits: {{rpm: 60, tpm_in: 1000, tpm_out: 500, concurrency: 4, monthly_tokens: 1000000000000}}
    priority: bulk
    weight: 3
    not_before: 2026-12-01
    expires: 2027-06-30
    admin: true
  "123":
    sha256:
      - {THREE}
    expires: 2027-06-30T18:00:00+02:00
    revoked: "2026-12-24T00:00:00Z"
"""


def test_the_yaml_form_gives_rights() -> None:
    """Whatever an entry leaves out is as a line of the other form has it. A date counts whole."""
    first, second = parse(WHOLE, K, MODELS)
    assert first == Entry(
        ApiKey(
            "team-a", "", frozenset({"big", "deep", "fast"}), Limits(60, 1000, 500, 4, 10**12), Priority.BULK, True,
            1796083200.0, 1814399999.999999, weight=3,
        ),
        (ONE, TWO),
    )  # fmt: skip
    assert second == Entry(ApiKey("123", expires=1814371200.0, revoked=1798070400.0), (THREE,))


@pytest.mark.parametrize("text", ["", "# nobody\n", "keys:\n", "keys: {}\n", "keys: # nobody yet\n"])
def test_a_file_without_keys_has_none(text: str) -> None:
    """Both forms may be empty, as when the last key was taken back."""
    assert parse(text, K, MODELS) == ()


def test_the_right_to_a_model_is_one_to_its_aliases_and_not_the_other_way_round() -> None:
    """An alias does no more than its model; the model does more than an alias that sets something."""
    (entry,) = parse(f"keys:\n  a:\n    sha256: [{ONE}]\n    models: [fast]\n", K, MODELS)
    assert entry.key.models == {"fast"}
    (entry,) = parse(f"keys:\n  a:\n    sha256: [{ONE}]\n    models: [small]\n", K, MODELS)
    assert entry.key.models == {"small", "fast"}


HEX = "must be one or two SHA-256 hashes of keys, 64 hex digits each; make key makes them"
DATE = "must be a date, such as 2027-06-30, or a time with its zone, such as 2027-06-30T18:00:00Z, not "
NAME = "a name is at most 64 letters, digits and ._-"
WRONG = {  # what stands below `a:`, and what is told
    "{}": "keys.a.sha256: " + HEX,
    "{sha256: []}": "keys.a.sha256: " + HEX,
    f"{{sha256: {ONE}}}": "keys.a.sha256: " + HEX,
    f"{{sha256: [{ONE}, {TWO}, {THREE}]}}": "keys.a.sha256: " + HEX,
    "{sha256: [sk-octet-mine]}": "keys.a.sha256.0: " + HEX,
    f"{{sha256: [{ONE.upper()}]}}": "keys.a.sha256.0: " + HEX,
    f"{{sha256: ['{ONE}\n']}}": "keys.a.sha256.0: " + HEX,
    "null": "keys.a: Input should be a valid dictionary",
    f"{{sha256: [{ONE}], model: [big]}}": "keys.a.model is no key that is known here",
    f"{{sha256: [{ONE}], models: []}}": "keys.a.models: List should have at least 1 item",
    f"{{sha256: [{ONE}], models: big}}": "keys.a.models: Input should be a valid list, not 'big'",
    f"{{sha256: [{ONE}], models: [nope]}}":
        "keys.a.models: 'nope' is no model or alias; it must be one of big, small, fast, deep",
    f"{{sha256: [{ONE}], priority: high}}": "keys.a.priority: Input should be 'interactive', 'normal' or 'bulk'",
    f"{{sha256: [{ONE}], weight: 0}}": "keys.a.weight: Input should be greater than 0, not 0",
    f"{{sha256: [{ONE}], weight: 1001}}": "keys.a.weight: Input should be less than or equal to 1000, not 1001",
    f"{{sha256: [{ONE}], weight: 1.5}}": "keys.a.weight: Input should be a valid integer",
    f"{{sha256: [{ONE}], weight: true}}": "keys.a.weight: Input should be a valid integer",
    f"{{sha256: [{ONE}], admin: 1}}": "keys.a.admin: Input should be a valid boolean, not 1",
    f"{{sha256: [{ONE}], limits: {{rps: 1}}}}": "keys.a.limits.rps is no key that is known here",
    f"{{sha256: [{ONE}], limits: {{rpm: 0}}}}": "keys.a.limits.rpm: Input should be greater than 0, not 0",
    f"{{sha256: [{ONE}], limits: {{rpm: -1}}}}": "keys.a.limits.rpm: Input should be greater than 0",
    f"{{sha256: [{ONE}], limits: {{rpm: 1.5}}}}": "keys.a.limits.rpm: Input should be a valid integer",
    f"{{sha256: [{ONE}], limits: {{rpm: '60'}}}}": "keys.a.limits.rpm: Input should be a valid integer",
    f"{{sha256: [{ONE}], limits: {{rpm: true}}}}": "keys.a.limits.rpm: Input should be a valid integer",
    f"{{sha256: [{ONE}], limits: {{tpm_in: .inf}}}}": "keys.a.limits.tpm_in: Input should be",
    f"{{sha256: [{ONE}], limits: {{tpm_out: 9999999999999999}}}}": "keys.a.limits.tpm_out: Input should be less than",
    f"{{sha256: [{ONE}], limits: {{tpm_out: {'9' * 40}}}}}": "keys.a.limits.tpm_out: Input should be a valid integer",
    f"{{sha256: [{ONE}], expires: 2027-02-30}}": f"keys.a.expires: {DATE}'2027-02-30'",
    f"{{sha256: [{ONE}], expires: tomorrow}}": f"keys.a.expires: {DATE}'tomorrow'",
    f"{{sha256: [{ONE}], expires: 2027-06-30T18:00:00}}": f"keys.a.expires: {DATE}'2027-06-30T18:00:00'",
    f"{{sha256: [{ONE}], expires: 1814371200}}": f"keys.a.expires: {DATE}1814371200",
    f"{{sha256: [{ONE}], not_before: '0001-01-01T00:00:00+14:00'}}": f"keys.a.not_before: {DATE}",
    f"{{sha256: [{ONE}], not_before: 2027-01-02, expires: 2027-01-01}}":
        "keys.a.expires: is not after not_before: the key would never be valid",
    f"{{sha256: [{ONE}, {ONE}]}}": f"keys.a.sha256: {ONE[:8]}... is keys.a's already: remove one of them",
    f"{{sha256: [{ONE}], expires: !!timestamp 2027-01-01}}": "is not valid YAML: line 2: tags are not taken",
    f"{{sha256: &x [{ONE}], models: *x}}": "is not valid YAML: line 2: aliases are not taken",
    f"{{sha256: [{ONE}], admin: true, admin: false}}": "is not valid YAML: 'admin' stands twice",
    "[": "is not valid YAML: ",
}  # fmt: skip


@pytest.mark.parametrize("entry", WRONG)
def test_a_wrong_entry_is_named(entry: str) -> None:
    """By the key and the field, with what must be there; digests and what might be a key are not repeated."""
    with pytest.raises(ConfigError) as caught:
        parse(f"keys:\n  a: {entry}\n", K, MODELS)
    told = str(caught.value)
    assert told.startswith(("k: ", "k is not valid YAML"))
    assert WRONG[entry] in told
    assert "\n" not in told
    assert ONE not in told
    assert "sk-octet-mine" not in told


WRONG_FILES = {
    f"keys:\n  a: {{sha256: [{ONE}]}}\n  b: {{sha256: [{TWO}, {ONE}]}}\n":
        f"keys.b.sha256: {ONE[:8]}... is keys.a's already: remove one of them",
    f"keys:\n  a: {{sha256: [{ONE}]}}\n  a: {{sha256: [{TWO}]}}\n": "'a' stands twice in \"<file>\", line 3",
    f"keys:\n  other: {{sha256: [{ONE}]}}\n": "keys.other: metrics use this name for others: choose another one",
    f"keys:\n  unnamed: {{sha256: [{ONE}]}}\n": "keys.unnamed: metrics use this name",
    f"keys:\n  none: {{sha256: [{ONE}]}}\n": "keys.none: metrics use this name",
    f"keys:\n  123: {{sha256: [{ONE}]}}\n": f"keys.123: {NAME}",
    f"keys:\n  on: {{sha256: [{ONE}]}}\n": f"keys.1: {NAME}",
    f"keys:\n  a b: {{sha256: [{ONE}]}}\n": f"keys.a b: {NAME}",
    f"keys:\n  .a: {{sha256: [{ONE}]}}\n": f"keys..a: {NAME}",
    f"keys:\n  {'a' * 65}: {{sha256: [{ONE}]}}\n": NAME,
    f"keys:\n  sk-octet-{'x' * 43}-{'y' * 43}: {{sha256: [{ONE}]}}\n": f"keys.***: {NAME}",
    f"keys:\n- a: {{sha256: [{ONE}]}}\n": "keys: Input should be a valid dictionary",
    f"keys:\n  sk-octet-{'x' * 43}: {{sha256: [{ONE}]}}\n": "keys: a name looks like a key, which must not stand",
    f"sha256:{ONE} sk-octet-{'x' * 43}\n": "k:1: its name looks like a key, which must not stand here",
    f"keys:\n  a: {{sha256: [{ONE}], models: [sk-octet-{'B' * 43}]}}\n": "keys.a.models: '***' is no model or alias",
    f"keys:\n  a: {{sha256: [{ONE}], models: [Bearersk-octet-{'B' * 43}]}}\n": "keys.a.models: 'Bearer***' is no model",
    f"keys:\n  sk-octet-{'B' * 43}: {{}}\n  sk-octet-{'B' * 43}: {{}}\n": "is not valid YAML: '***' stands twice",
    "keys: a\n": "keys: Input should be a valid dictionary",
    "keys: {}\nmodels: {}\n": "models is no key that is known here",
    "keys:\n  a:\n  sk-octet-mine\n": "is not valid YAML",
    "keys: [" + "[" * 30: "is not valid YAML: line 1: it is nested more than 20 deep",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_wrong_file_is_told(text: str) -> None:
    """Two keys alike, names that cannot be, and what is no such file at all."""
    with pytest.raises(ConfigError) as caught:
        parse(text, K, MODELS)
    assert WRONG_FILES[text] in str(caught.value)
    assert "sk-octet" not in "".join(traceback.format_exception(caught.value))


def test_a_revoked_key_may_outlive_its_models() -> None:
    """Else a model could not be taken away without touching the entries of keys that are gone."""
    (entry,) = parse(f"keys:\n  a: {{sha256: [{ONE}], models: [gone], revoked: 2026-01-01}}\n", K, MODELS)
    assert entry.key.revoked is not None


def test_thousands_of_lines_are_read_and_the_yaml_form_has_a_bound_of_its_own(tmp_path: Path) -> None:
    """A line takes microseconds, an entry of the YAML form hundreds of them."""
    path = tmp_path / "keys"
    path.write_text("".join(f"sha256:{number:064x} team-{number}\n" for number in range(10_000)))
    assert len(read(path, MODELS)) == 10_000
    with pytest.raises(ConfigError, match=r"^k is larger than 262144 bytes.*begins with `keys:`: remove"):
        parse("keys:\n" + "#" * 256 * 1024, K, MODELS)


def test_a_file_that_cannot_be_read_says_what_makes_one(tmp_path: Path) -> None:
    """Not there, no text, or larger than any key file."""
    with pytest.raises(
        ConfigError, match=r"^GATEWAY_API_KEYS_FILE=.*keys: No such file.*; make key writes one$"
    ):
        read(tmp_path / "keys", MODELS)
    (tmp_path / "keys").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"^GATEWAY_API_KEYS_FILE=.*keys cannot be read"):
        read(tmp_path / "keys", MODELS)
    (tmp_path / "keys").write_bytes(b"#" * 5_000_000)
    with pytest.raises(ConfigError, match=r"larger than 4194304 bytes"):
        read(tmp_path / "keys", MODELS)


def test_a_file_that_was_replaced_behind_its_mount_is_told(tmp_path: Path) -> None:
    """Docker mounts the file, so a container goes on seeing one whose name was given to another."""
    path = tmp_path / "keys"
    path.write_text(f"sha256:{ONE}\n")
    with path.open() as file:
        path.unlink()
        with pytest.raises(ConfigError, match=r"replaced by another file.*--force-recreate gateway"):
            read(Path(f"/proc/self/fd/{file.fileno()}"), MODELS)
