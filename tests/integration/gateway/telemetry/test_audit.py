"""The audit log of a real gateway: every request with its outcome, changes of keys, nothing that it must not hold."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, Site, ask, run_to_its_end, wait_until

KEY, WRONG = "sk-octet-" + "a" * 43, "sk-octet-" + "b" * 43
MINE = {"authorization": f"Bearer {KEY}"}
SECRETS = (KEY, WRONG, "hello", "the header's value")
Line = Mapping[str, Any]


def write_keys(path: Path, **keys: object) -> None:
    """Writes a key file whose first key is KEY."""
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (KEY, WRONG)]
    entries = {
        name: {"sha256": [digest], **dict(rights or {})}  # type: ignore[call-overload]
        for (name, rights), digest in zip(keys.items(), digests, strict=False)
    }
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump({"keys": entries}))
    fresh.rename(path)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """Those of a gateway with keys and an audit log."""
    write_keys(tmp_path / "keys", team=None)
    return {
        "GATEWAY_API_KEYS_FILE": tmp_path / "keys",
        "GATEWAY_AUDIT": "on",
        "GATEWAY_STATE_DIR": tmp_path / "state",
    }


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "state" / "audit").glob("*.jsonl"))


def lines(tmp_path: Path, event: str, least: int = 1, **facts: object) -> list[Line]:
    """The audit log's lines of an event with these facts, once there are as many as `least`."""

    def found() -> list[Line] | None:
        text = "".join(path.read_text() for path in files(tmp_path))
        whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        chosen = [line for line in whole if {"event": event, **facts}.items() <= line.items()]
        return chosen if len(chosen) >= least else None

    return wait_until(found, f"{least} lines {event} {facts}") or []


def send(gateway: Gateway, body: object, **headers: str) -> httpx.Response:
    own = {**MINE, "x-own": "the header's value", "content-type": "application/json", **headers}
    return gateway.http.post(CHAT, content=json.dumps(body), headers=own)


def test_a_request_has_one_line(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path
) -> None:
    """Who asked for which model when, and what came of it; the file is this user's alone."""
    gateway = start_gateway(**settings)
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert send(gateway, ask("alpha"), **{"x-request-id": "mine-1"}).status_code == 200
    (line,) = lines(tmp_path, "request", id="mine-1")
    assert before < datetime.fromisoformat(line["ts"]) < datetime.now(UTC) + timedelta(seconds=1)
    wanted = {
        "logger": "audit", "client": "127.0.0.1", "key": "team", "route": "chat_completions", "model": "alpha",
        "status": 200, "ending": "complete", "code": None, "prompt_tokens": 1, "completion_tokens": 2,
    }  # fmt: skip
    assert wanted.items() <= line.items()
    assert line["sent_id"].startswith("mine-1-")
    assert line["duration_ms"] > 0
    (path,) = files(tmp_path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert path.stem == line["ts"][:10]


def test_what_is_refused_has_a_line_too(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path
) -> None:
    """By its key, its model, its fields or its body; and no line has a key, a header or a prompt."""
    gateway = start_gateway(**settings, GATEWAY_FIELD_POLICY="strict")
    refused: list[tuple[object, Mapping[str, str], Line]] = [
        (ask("alpha"), {"authorization": f"Bearer {WRONG}"},
         {"status": 401, "code": "invalid_api_key", "key": None, "model": "unknown"}),
        (ask("gpt-7"), {}, {"status": 404, "code": "model_not_found", "key": "team", "model": "gpt-7"}),
        (ask("m" * 900), {}, {"status": 404, "code": "model_not_found", "model": "m" * 256}),
        (ask("alpha") | {"chat_template": "x"}, {},
         {"status": 400, "code": "invalid_request", "key": "team", "param": "chat_template"}),
        ([], {}, {"status": 400, "code": "invalid_request", "key": "team", "model": "unknown"}),
    ]  # fmt: skip
    for at, (body, headers, facts) in enumerate(refused):
        answer = send(gateway, body, **{**headers, "x-request-id": f"refused-{at}"})
        assert answer.status_code == facts["status"]
        (line,) = lines(tmp_path, "request", id=f"refused-{at}")
        assert {**facts, "client": "127.0.0.1", "ending": "refused"}.items() <= line.items()
    written = files(tmp_path)[0].read_text()
    assert [secret for secret in SECRETS if secret in written] == []


def test_a_client_that_leaves_has_a_line(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path, own_worker: FakeWorker
) -> None:
    """With its address, which the connection can no longer tell."""
    gateway = start_gateway(**settings)
    own_worker.forget()
    body = json.dumps(ask("alpha", "json", hold=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    with gateway.connect(head.encode() + body):
        own_worker.next()
    (line,) = lines(tmp_path, "request", status=499)
    assert {
        "client": "127.0.0.1",
        "ending": "client_gone",
        "key": "team",
        "model": "alpha",
    }.items() <= line.items()


def test_prompts_are_written_only_if_wanted(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path
) -> None:
    """With the setting the body stands in a line of its own, with the request's id, and without its media."""
    gateway = start_gateway(**settings, GATEWAY_AUDIT_PROMPTS="1")
    image = "A" * 4000
    content = [
        {"type": "text", "text": "Who is this?"},
        {"type": "input_audio", "input_audio": {"data": image, "format": "wav"}},
    ]
    body = {"model": "alpha", "messages": [{"role": "user", "content": content}]}
    send(gateway, body, **{"x-request-id": "asked-1"})
    (line,) = lines(tmp_path, "prompt", id="asked-1")
    assert line["key"] == "team"
    assert json.loads(line["body"])["messages"][0]["content"][0] == content[0]
    assert "<3000 bytes of media>" in line["body"]
    assert line["body_bytes"] > 4000
    (request,) = lines(tmp_path, "request", id="asked-1")
    assert request["sent_id"] == line["sent_id"]
    form = {"model": (None, "alpha"), "file": ("a.wav", b"hello" * 100)}
    gateway.http.post("/v1/audio/transcriptions", files=form, headers={**MINE, "x-request-id": "asked-2"})
    (line,) = lines(tmp_path, "prompt", id="asked-2")
    assert line["body"] is None
    assert line["body_bytes"] > 500
    assert [line for line in lines(tmp_path, "request") if "Who is this?" in json.dumps(line)] == []


@pytest.mark.parametrize("processes", [1, 2])
def test_changes_of_the_key_file_are_written_once(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path, processes: int
) -> None:
    """By name, however many processes read it."""
    gateway = start_gateway(**settings, GATEWAY_PROCESSES=processes)
    write_keys(tmp_path / "keys", team={"limits": {"rpm": 5}}, second=None)
    gateway.several(processes, "keys_read")
    write_keys(tmp_path / "keys", team={"revoked": "2026-01-01"}, second=None)
    gateway.several(2 * processes, "keys_read")
    told = [(line["key"], line["change"], line["rights"]) for line in lines(tmp_path, "key_changed", 4)]
    assert told == [
        ("second", "added", []), ("team", "changed", ["limits"]),
        ("team", "revoked", []), ("team", "changed", ["limits"]),
    ]  # fmt: skip


def test_old_files_are_deleted(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path
) -> None:
    """At the start, and told; those within the days stay."""
    folder = tmp_path / "state" / "audit"
    folder.mkdir(parents=True)
    today = datetime.now(UTC).date()
    old, kept = (folder / f"{today - timedelta(days)}.jsonl" for days in (9, 5))
    old.touch()
    kept.touch()
    gateway = start_gateway(**settings, GATEWAY_AUDIT_DAYS="7")
    gateway.event("audit_deleted", file=old.name)
    assert (old.exists(), kept.exists()) == (False, True)


def test_an_audit_log_that_cannot_be_written_stops_nobody(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path
) -> None:
    """It is told once and counted; once it can be written again, that is told, and a line says what is missing."""
    gateway = start_gateway(**settings)
    folder = tmp_path / "state" / "audit"
    folder.rename(tmp_path / "aside")
    folder.write_text("no folder")
    for at in range(3):
        assert send(gateway, ask("alpha"), **{"x-request-id": f"lost-{at}"}).status_code == 200
        wait_until(lambda at=at: gateway.metric("gateway_audit_lines_dropped_total") == at + 1, "a lost line")
    told = gateway.event("audit_unwritable")
    assert (told["level"], "requests go on" in told["message"]) == ("error", True)
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    assert send(gateway, ask("alpha"), **{"x-request-id": "kept"}).status_code == 200
    gateway.event("audit_written_again", dropped=3)
    lines(tmp_path, "request", id="kept")
    lines(tmp_path, "log_lines_dropped", logger="audit", lines=3)
    assert len(gateway.events("audit_unwritable")) == 1


def test_nothing_is_lost_at_the_end(
    start_gateway: StartGateway, settings: dict[str, object], tmp_path: Path
) -> None:
    """What waits is written before the process is gone."""
    gateway = start_gateway(**settings)
    for at in range(20):
        send(gateway, ask("alpha"), **{"x-request-id": f"last-{at}"})
    gateway.terminate()
    assert gateway.end() == (0, "")
    assert len([line for line in lines(tmp_path, "request") if line["id"].startswith("last-")]) == 20


def test_a_folder_that_cannot_be_written_ends_the_start(site: Site, tmp_path: Path) -> None:
    """Who wants an audit log must not find out later that there is none."""
    (tmp_path / "state").write_text("no folder")
    done = run_to_its_end(site, GATEWAY_AUDIT="on", GATEWAY_STATE_DIR=tmp_path / "state")
    assert done.returncode == 2
    assert "GATEWAY_AUDIT=on, but the audit log cannot be written" in done.stderr
    assert f"uid {os.getuid()}" in done.stderr


def test_off_is_off(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Nothing is made, nothing is written."""
    gateway = start_gateway(GATEWAY_STATE_DIR=tmp_path / "state")
    assert gateway.chat("alpha").status_code == 200
    assert not (tmp_path / "state").exists()
