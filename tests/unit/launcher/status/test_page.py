"""The ops port's pages say what the state says, in Prometheus' format and in JSON."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from launcher.engine.phases import Phase
from launcher.status import page
from launcher.status.state import State, Trouble

SINCE = "2026-11-20T20:00:00.000Z"
NOW = datetime(2026, 11, 20, 20, 0, 30, tzinfo=UTC)
LOADING = State(
    "a", Phase.LOADING, run=2, seconds={"starting": 20.5}, percent=40, since=SINCE, crashes=1, hangs=1,
    usual={"loading": 100.0, "warm-up": 10.0}, weights_bytes=212_500_000_123, compile_cache_hit=True,
)  # fmt: skip
DISKS = {"weights": (400_000_000_001, 900_000_000_000)}


def samples(state: State) -> dict[str, float]:
    """Every sample, by its name and its one label's value."""
    families = text_string_to_metric_families(page.exposition(state, DISKS, NOW))
    found = [sample for family in families for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in found}


def test_a_start_in_numbers() -> None:
    found = samples(LOADING)
    assert found["launcher_phase loading"] == 1
    assert sum(value for name, value in found.items() if name.startswith("launcher_phase ")) == 1
    assert found["launcher_phase_seconds starting"] == 20.5
    assert found["launcher_phase_seconds loading"] == 30
    assert found["launcher_usual_phase_seconds loading"] == 100
    assert found["launcher_start_left_seconds"] == 55  # 60 % in 45 s, and the warm-up
    assert found["launcher_loaded_ratio"] == 0.4
    assert found["launcher_weights_bytes"] == 212_500_000_123
    assert [found[f"launcher_compile_cache {outcome}"] for outcome in ("hit", "miss", "none")] == [1, 0, 0]
    assert [found[f"launcher_{name}_total"] for name in ("starts", "crashes", "hangs")] == [2, 1, 1]
    assert found["launcher_disk_free_bytes weights"] == 400_000_000_001
    assert found["launcher_disk_bytes weights"] == 900_000_000_000


def test_a_trouble_is_one_of_a_closed_set() -> None:
    found = samples(State("a", Phase.WEIGHTS_CHECK, trouble=Trouble.WEIGHTS_CORRUPT, since=SINCE))
    told = {name for name in found if name.startswith("launcher_trouble ")}
    assert told == {f"launcher_trouble {trouble}" for trouble in Trouble}
    assert sum(found[name] for name in told) == found["launcher_trouble weights-corrupt"] == 1


def test_what_is_not_known_is_not_told() -> None:
    found = samples(State("a", Phase.STARTING, since=SINCE))
    unknown = ("start_left_seconds", "loaded_ratio", "weights_bytes")
    assert not {f"launcher_{name}" for name in unknown} & found.keys()
    assert found["launcher_compile_cache none"] == 1


def test_what_is_loaded_stays_so() -> None:
    """vLLM tells its share while it loads; afterwards all is there."""
    found = samples(State("a", Phase.COMPILING, seconds={"loading": 100.0}, since=SINCE))
    assert found["launcher_loaded_ratio"] == 1


def test_the_report_is_the_state_and_what_is_left() -> None:
    told = page.report(LOADING, NOW)
    assert (told["phase"], told["percent"], told["left_s"]) == ("loading", 40, 55.0)
