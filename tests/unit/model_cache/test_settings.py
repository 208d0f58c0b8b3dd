"""Settings come from MODEL_CACHE_* only, and every fault in them is named at once."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from model_cache.errors import ConfigError
from model_cache.settings import Settings, VolumeSettings, load


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that a run needs."""
    monkeypatch.setenv("MODEL_CACHE_SLUG", "qwen3-0p6b-cpu")
    monkeypatch.setenv("MODEL_CACHE_REPO", "Qwen/Qwen3-0.6B")


def test_defaults_are_those_of_the_container() -> None:
    """Two variables are enough."""
    settings = load(Settings)

    assert (settings.revision, settings.dir, settings.port) == ("master", Path("/weights"), 8002)
    assert (settings.endpoint, settings.progress) == ("https://modelscope.cn", "auto")
    assert settings.token() is None


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose passes an unset variable on as an empty one."""
    monkeypatch.setenv("MODEL_CACHE_REVISION", "")
    monkeypatch.setenv("MODEL_CACHE_TOKEN_FILE", "")

    assert (load(Settings).revision, load(Settings).token_file) == ("master", None)


def test_online_chooses_the_other_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fetched only when asked for, and a slug without one says so."""
    monkeypatch.setenv("MODEL_CACHE_ONLINE_REPO", "Qwen/unquantised")
    assert load(Settings).chosen_repo == "Qwen/Qwen3-0.6B"
    monkeypatch.setenv("MODEL_CACHE_SOURCE", "online")
    assert load(Settings).chosen_repo == "Qwen/unquantised"
    monkeypatch.delenv("MODEL_CACHE_ONLINE_REPO")
    with pytest.raises(ConfigError, match=r"qwen3-0p6b-cpu has no weights that are quantised at load"):
        load(Settings)


def test_a_source_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped source must not fetch 399 GB."""
    monkeypatch.setenv("MODEL_CACHE_SOURCE", "on-line")
    with pytest.raises(ConfigError, match=r"MODEL_CACHE_SOURCE: .*'published' or 'online'"):
        load(Settings)


def test_settings_do_not_change() -> None:
    """What was read at the start holds for the run."""
    with pytest.raises(ValidationError):
        load(Settings).port = 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUG", "Qwen3"),
        ("SLUG", "../x"),
        ("SLUG", "a_b"),
        ("REPO", "Qwen3-0.6B"),
        ("REPO", "../Qwen3"),
        ("REPO", "Qwen/../x"),
        ("REPO", "Qwen/Qwen3\n"),
        ("ENDPOINT", "modelscope.cn"),
        ("ENDPOINT", "ftp://modelscope.cn"),
        ("ENDPOINT", "http://"),
        ("PORT", "65536"),
        ("PORT", "web"),
        ("PROGRESS", "loud"),
        ("MOST_BYTES_PER_S", "10"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The message starts with the variable at fault."""
    monkeypatch.setenv(f"MODEL_CACHE_{name}", value)

    with pytest.raises(ConfigError, match=f"^MODEL_CACHE_{name}: "):
        load(Settings)


def test_every_fault_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator mends all of them at once."""
    monkeypatch.delenv("MODEL_CACHE_SLUG")
    monkeypatch.setenv("MODEL_CACHE_REPO", "x")

    with pytest.raises(ConfigError) as caught:
        load(Settings)

    assert str(caught.value).startswith(
        "MODEL_CACHE_SLUG: is not set; MODEL_CACHE_REPO: 'x' is no repository"
    )
    assert "\n" not in str(caught.value)


def test_the_endpoint_loses_its_trailing_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are appended to it."""
    monkeypatch.setenv("MODEL_CACHE_ENDPOINT", "http://hub:8090/")

    assert load(Settings).endpoint == "http://hub:8090"


def with_token(path: Path, text: str | None) -> Settings:
    """Settings whose token file holds *text*."""
    if text is not None:
        path.write_text(text)
    return Settings.model_validate({"slug": "a", "repo": "a/b", "token_file": path})


def test_the_token_is_the_files_text(tmp_path: Path) -> None:
    """Editors add a newline; it is not part of the token."""
    assert with_token(tmp_path / "token", " secret\n").token() == "secret"


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_a_token_file_without_token_is_named(tmp_path: Path, text: str | None) -> None:
    """A missing or empty file is a configuration error, not an anonymous download."""
    with pytest.raises(ConfigError, match="MODEL_CACHE_TOKEN_FILE"):
        with_token(tmp_path / "token", text).token()


@pytest.mark.parametrize("text", ["one\ntwo", "two words", "schlüssel"])
def test_what_cannot_be_a_token_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    """It would come back in an error of whatever sends it."""
    with pytest.raises(ConfigError, match="is no token") as caught:
        with_token(tmp_path / "token", text).token()
    assert text not in str(caught.value)


def test_a_kind_of_volume_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads the volume: pruning one that hosts share would take weights from another host's worker."""
    monkeypatch.setenv("MODEL_CACHE_VOLUME", "shard")
    with pytest.raises(ConfigError, match=r"MODEL_CACHE_VOLUME: .*'auto', 'local' or 'shared'"):
        load(VolumeSettings)
