"""The load generator against the real mock worker: figures over wrong answers must be impossible."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from bench import measure, peers
from bench.gateway import Unknown, all_keys, chosen, takes_part
from bench.load import WrongAnswer
from bench.record import Row
from bench.scenarios import JSON, MANY, REASONING, Scenario, all_scenarios
from bench.servers import MAIN, Kind, Server, mock_started


def scenario(key: str) -> Scenario:
    """A small one: few connections, no ramp."""
    found = next(scenario for scenario in all_scenarios() if scenario.key == key)
    return replace(found, connections=3, ramp_s=0.0, seconds=0.1)


@pytest.fixture
def mock(tmp_path: Path) -> Iterator[Server]:
    with mock_started(tmp_path, min(os.sched_getaffinity(0))) as (server, _):
        yield server


def test_every_answer_is_told(mock: Server) -> None:
    """JSON on three connections: each answer complete, timed, and the expected bytes."""
    tally = uvloop.run(measure.run_load(mock, scenario(JSON)))
    assert tally.answers == len(tally.timings) >= 3
    assert tally.body_bytes == tally.answers * len(scenario(JSON).body)
    assert 0 < tally.window_answers <= tally.answers


def test_streams_come_chunk_by_chunk(mock: Server) -> None:
    """A hundred chunks and [DONE] each, none joined: an unloaded mock worker writes them 20 ms apart."""
    tally = uvloop.run(measure.run_load(mock, scenario(MANY)))
    assert tally.answers == 3
    assert tally.pieces == 3 * 101


def test_another_answer_ends_the_round(mock: Server) -> None:
    """One byte more or less is no answer of this run."""
    wrong = replace(scenario(JSON), body=scenario(JSON).body + b" ")
    with pytest.raises(WrongAnswer, match="status 200"):
        uvloop.run(measure.run_load(mock, wrong))


def test_a_peer_that_fails_is_noted_and_left_out(mock: Server) -> None:
    """Its rows say why; a server of ours that fails ends the run."""
    wrong, row = replace(scenario(JSON), body=b"{}"), Row(JSON, "peer")
    measure.add_round(row, replace(mock, kind=Kind.RUST), wrong, 1)
    assert "status 200" in row.failure
    assert row.samples == []
    with pytest.raises(WrongAnswer, match="mock worker, direct"):
        measure.add_round(Row(JSON, mock.key), mock, wrong, 1)


def test_what_is_expected_depends_on_who_answers(mock: Server) -> None:
    """Both names of reasoning from our gateway alone; LiteLLM's own wording is compared by its text."""
    reasoning, ours = scenario(REASONING), replace(mock, kind=Kind.GATEWAY)
    assert reasoning.expected(ours) != reasoning.expected(replace(mock, kind=Kind.RUST)) == reasoning.body
    loose = scenario(JSON).plan(replace(mock, kind=Kind.PYTHON)).is_right
    assert loose(scenario(JSON).body + b" ")
    assert not loose(b'{"error":{}}')


def test_names_on_the_command_line_are_known_ones() -> None:
    """Order is the run's own, and a wrong name is answered with the right ones."""
    assert chosen("smg,gateway", all_keys(), "server") == [MAIN, "smg"]
    with pytest.raises(Unknown, match="no server is called nignx; there are: gateway, "):
        chosen("nignx", all_keys(), "server")


def test_a_server_no_scenario_takes_is_not_started() -> None:
    """A JSON row alone needs neither the grown gateways nor their time."""
    assert [key for key in all_keys() if takes_part(key, [scenario(REASONING)])] == [
        MAIN,
        *(peer.key for peer in peers.PEERS if peer.kind is Kind.RUST),
    ]


def test_what_bench_peers_installs_is_what_the_benchmark_looks_for() -> None:
    """Every peer but nginx, which Debian has, stands in peers.txt with its version."""
    lines = (peers.FOLDER.parents[1] / "bench" / "peers.txt").read_text().splitlines()
    pinned = {line.split("==")[0].split("[")[0] for line in lines if not line.startswith("#")}
    assert pinned == {peer.key for peer in peers.PEERS} - {"nginx"}
