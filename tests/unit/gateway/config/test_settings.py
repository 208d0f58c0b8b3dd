"""Settings: each read from its variable, and no bind that lets strangers in unasked."""

from pathlib import Path

import pytest

from gateway.api.errors import ConfigError
from gateway.config.settings import Settings, is_loopback, load_settings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GATEWAY_* variable of the person who runs the tests."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"GATEWAY_{field.upper()}", raising=False)


def test_the_defaults_are_safe() -> None:
    """Without a variable the gateway is for this host alone, and lets go of connections before vLLM's 5 s."""
    settings = load_settings()
    assert (settings.bind, settings.listen_address) == ("127.0.0.1", "127.0.0.1")
    assert (settings.port, settings.ops_port, settings.open) == (8000, 8001, False)
    assert settings.pool_idle_s < 5


def test_variables_set_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """GATEWAY_X is the field x."""
    monkeypatch.setenv("GATEWAY_PORT", "9000")
    monkeypatch.setenv("GATEWAY_WORKERS_FILE", "/etc/workers")
    assert (load_settings().port, load_settings().workers_file) == (9000, Path("/etc/workers"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "x"),
        ("PORT", "65536"),
        ("INTERVAL_S", "0"),
        ("DRAIN_S", "0"),
        ("OPEN", "perhaps"),
        ("PROBE_FALL", "0"),
        ("ALLOWED_HOSTS", "http://node-7"),
        ("ALLOWED_HOSTS", "node-7:8000"),
        ("CORS_ORIGINS", "app.example"),
        ("CORS_ORIGINS", "https://app.example/"),
    ],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """The message names the variable, its value and where it is documented."""
    monkeypatch.setenv(f"GATEWAY_{variable}", value)
    with pytest.raises(ConfigError, match=rf"^GATEWAY_{variable}='{value}': .*docs/configuration.md$"):
        load_settings()


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_a_bind_beyond_loopback_needs_a_word(monkeypatch: pytest.MonkeyPatch, bind: str) -> None:
    """Anything but loopback is refused, naming both ways out, and taken with either of them."""
    monkeypatch.setenv("GATEWAY_BIND", bind)
    if not bind:
        assert load_settings().bind == "127.0.0.1"
        return
    with pytest.raises(ConfigError, match=r"GATEWAY_API_KEYS_FILE.*GATEWAY_OPEN=1"):
        load_settings()
    monkeypatch.setenv("GATEWAY_OPEN", "1")
    assert load_settings().bind == bind
    monkeypatch.setenv("GATEWAY_OPEN", "0")
    monkeypatch.setenv("GATEWAY_API_KEYS_FILE", "/keys")
    assert load_settings().bind == bind


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("loop", False),
    ],
)
def test_what_counts_as_loopback(address: str, expected: bool) -> None:
    """Loopback addresses and the name localhost; no other name is trusted."""
    assert is_loopback(address) is expected
