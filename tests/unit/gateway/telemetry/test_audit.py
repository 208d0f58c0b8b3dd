"""The audit trail's own decisions: what it tells of trouble, and when it deletes nothing."""

import pytest

from gateway.api.errors import ConfigError
from gateway.config.settings import load_settings
from gateway.telemetry import audit
from gateway.telemetry.audit import Disk


def test_trouble_is_told_once_and_so_is_its_end() -> None:
    """However many lines are lost in between."""
    told: list[OSError | None] = []
    faults: list[OSError | None] = [
        None,
        OSError(28, "full"),
        OSError(28, "full"),
        None,
        None,
        OSError(30, "read-only"),
    ]

    def append(lines: bytes) -> None:
        if (fault := faults.pop(0)) is not None:
            raise fault

    disk, raised = Disk(append, told.append), 0
    while faults:
        try:
            disk.write(b"a\n")
        except OSError:
            raised += 1
    assert raised == 3
    assert [one and one.errno for one in told] == [28, None, 30]


def test_a_clients_word_is_bounded_and_can_be_written() -> None:
    """Half a surrogate pair could not be."""
    assert audit.word_of("a\ud800b") == "a?b"
    assert len(audit.word_of("m" * 10_000)) == audit.MAX_WORD


def test_prompts_without_an_audit_log_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody counts on them."""
    monkeypatch.setenv("GATEWAY_AUDIT_PROMPTS", "1")
    with pytest.raises(ConfigError, match="GATEWAY_AUDIT_PROMPTS is set without GATEWAY_AUDIT=on: set both"):
        load_settings()
