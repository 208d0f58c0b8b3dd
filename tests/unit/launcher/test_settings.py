"""Settings come from `LAUNCHER_*` variables; a wrong one is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.settings import Capability, Settings, SettingsError


def test_only_the_slug_is_required() -> None:
    """With the slug alone every other setting has the default of the worker image."""
    settings = Settings.from_environ({"LAUNCHER_SLUG": "qwen3-0p6b-cpu"})
    expected = Settings(
        slug="qwen3-0p6b-cpu",
        weights_dir=Path("/weights"),
        serve_config=Path("/etc/octet/serve.yaml"),
        state_dir=Path("/run/octet"),
        command=("vllm", "serve"),
        port=8000,
        stop_grace_s=60.0,
        backoff_s=10.0,
        hang_after_s=300.0,
        warm_s=600.0,
        warms=(Capability.TEXT,),
        gpus=0,
        gpu_slots_dir=Path("/gpu-slots"),
        cache_dir=Path("/cache"),
        ops_port=8003,
    )
    assert expected == settings


def test_an_empty_value_means_the_default() -> None:
    """Compose hands over an empty string for a variable that is not set."""
    settings = Settings.from_environ({"LAUNCHER_SLUG": "a", "LAUNCHER_PORT": "", "LAUNCHER_COMMAND": ""})
    assert (settings.port, settings.command) == (8000, ("vllm", "serve"))


def test_the_command_is_split_like_a_shell_would() -> None:
    """A path with a blank survives in quotes."""
    settings = Settings.from_environ({"LAUNCHER_SLUG": "a", "LAUNCHER_COMMAND": "'/a b/python' -m x --model"})
    assert settings.command == ("/a b/python", "-m", "x", "--model")


def test_a_hang_may_be_no_reason_to_kill() -> None:
    """0 seconds mean never."""
    assert Settings.from_environ({"LAUNCHER_SLUG": "a", "LAUNCHER_HANG_AFTER_S": "0"}).hang_after_s == 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LAUNCHER_SLUG", "", "is not set"),
        ("LAUNCHER_SLUG", "../models", "lower-case letters, digits and hyphens"),
        ("LAUNCHER_PORT", "eight", "a port number"),
        ("LAUNCHER_PORT", "65536", "from 1 to 65535"),
        ("LAUNCHER_STOP_GRACE_S", "soon", "a number of seconds"),
        ("LAUNCHER_STOP_GRACE_S", "0", "more than 0"),
        ("LAUNCHER_BACKOFF_S", "nan", "more than 0"),
        ("LAUNCHER_BACKOFF_S", "1e300", "at most 1e+06"),
        ("LAUNCHER_WARM_S", "-1", "more than 0"),
        ("LAUNCHER_WARMS", "text pictures", "some of text, tools, images"),
        ("LAUNCHER_BACKOFF_S", "inf", "more than 0"),
        ("LAUNCHER_HANG_AFTER_S", "never", "a number of seconds"),
        ("LAUNCHER_HANG_AFTER_S", "-1", "more than 0"),
        ("LAUNCHER_HANG_AFTER_S", "nan", "more than 0"),
        ("LAUNCHER_GPUS", "all", "a number of GPUs"),
        ("LAUNCHER_GPUS", "-1", "from 0 to 1024"),
        ("LAUNCHER_COMMAND", "'vllm", "matching quotes"),
        ("LAUNCHER_COMMAND", "  ", "must name a program"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(name: str, value: str, words: str) -> None:
    """The line names the variable and says what it must be."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"LAUNCHER_SLUG": "a", name: value})
    line = str(caught.value)
    assert name in line
    assert words in line
    assert "\n" not in line
