"""`make tune`: what it tries, when something counts as better, and what is left after a kill."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.tune import option, report, search, variant
from bench.tune.engine import EngineError, Load, Measured, StartError
from bench.tune.goal import WORST, Goal, Score
from bench.tune.journal import Journal, JournalError, Trial
from bench.tune.option import Option, OptionsError
from bench.tune.tuning import Outcome, Tuning

ROOT = Path(__file__).resolve().parents[3]
SLUGS = sorted(path.parent.name for path in ROOT.glob("docker/*/card.yaml"))
TABLE = ROOT / "bench/tune/options.yaml"
LOAD = Load((8, 32), rounds=3, prompts=5, input_len=256, output_len=128)
SHIPPED = """# A comment that must stay.
max-num-seqs: 256

# The draft.
speculative-config: '{"method": "mtp", "num_speculative_tokens": 1}'
scheduling-policy: priority
"""
Options = Mapping[str, Any]


def load(
    value: float = 100.0, *, at: int = 0, concurrency: int = 8, ttft: float = 50, tpot: float = 10
) -> dict[str, Any]:
    """A round as `bench/serve.py` prints it."""
    return {
        "round": at, "way": "direct", "concurrency": concurrency, "failed": 0, "output_throughput": value,
        "median_ttft_ms": ttft, "median_tpot_ms": tpot,
    }  # fmt: skip


@dataclass
class Simulated:
    """An engine that is a function of the options, with noise; it notes what was started."""

    speed: Callable[[Options], float]
    noise: float = 0.0
    seed: int = 0
    started: list[Options] = field(default_factory=list)
    dies_at: int | None = None

    def measure(self, serve_yaml: Path, load_: Load) -> Measured:
        if len(self.started) == self.dies_at:
            raise KeyboardInterrupt
        options = yaml.safe_load(serve_yaml.read_text())
        self.started.append(options)
        draw = random.Random(f"{self.seed} {len(self.started)}")
        speed = self.speed(options)
        if math.isnan(speed):
            raise StartError("not enough memory\nfor this")
        rounds = [(at, one) for at in range(load_.rounds) for one in load_.concurrency]
        return Measured(
            30.0,
            [
                load(speed * (1 + draw.uniform(-1, 1) * self.noise), at=at, concurrency=one)
                for at, one in rounds
            ],
        )


@pytest.fixture
def tuning(tmp_path: Path) -> Callable[..., Tuning]:
    """A session with the shipped table, on a GPU, with an engine of the test's own."""
    serve_yaml = tmp_path / "shipped.yaml"
    serve_yaml.write_text(SHIPPED)

    def make(engine: Simulated, **changes: Any) -> Tuning:
        options = option.load(TABLE, yaml.safe_load(SHIPPED), gpus=8, lossy=False)
        journal = Journal(tmp_path / "journal.jsonl", {"slug": "a"})
        plain = Tuning(serve_yaml, tmp_path, options, Goal(), LOAD, engine, journal, 12, lambda line: None)
        return replace(plain, **changes)

    return make


def planted(seqs: int, tokens: int, drafts: int, *, sync: bool = False) -> Callable[[Options], float]:
    """A speed with one optimum. Options act together: more requests at once want more tokens a step."""

    def speed(options: Options) -> float:
        draft = json.loads(options["speculative-config"])["num_speculative_tokens"]
        far = abs(math.log2(options.get("max-num-seqs", 1024) / seqs))
        far += 0.6 * abs(math.log2(options.get("max-num-batched-tokens", 8192) / tokens))
        far += 0.5 * abs(draft - drafts) + 0.4 * ((options.get("async-scheduling") is False) is not sync)
        return 1000 * 0.85**far

    return speed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("seqs", "tokens", "drafts", "sync"),
    [(128, 8192, 2, False), (512, 16384, 1, False), (64, 8192, 1, False), (256, 4096, 3, True), (256, 8192, 1, False)],
)  # fmt: skip
def test_it_finds_a_planted_optimum_in_at_most_twelve_runs(
    tuning: Callable[..., Tuning], seqs: int, tokens: int, drafts: int, sync: bool, seed: int
) -> None:
    """From serve.yaml's values, with the whole table of a slug on GPUs, where rounds differ by up to 3 %."""
    engine = Simulated(planted(seqs, tokens, drafts, sync=sync), noise=0.015, seed=seed)
    outcome = tuning(engine).run()
    found = yaml.safe_load(variant.text(SHIPPED, outcome.best.changes))
    assert len(engine.started) <= 12
    assert engine.speed(found) == 1000
    assert outcome.is_better is (engine.speed(yaml.safe_load(SHIPPED)) < 1000)


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_is_no_gain(tuning: Callable[..., Tuning], seed: int) -> None:
    """Where no option does anything, hardly ever is something called better, and never is it written far wrong."""
    engine = Simulated(lambda options: 1000.0, noise=0.05, seed=seed)
    outcome = tuning(engine).run()
    assert len(engine.started) <= 12
    assert not outcome.is_better


def test_a_session_that_was_killed_goes_on_where_it_was(
    tuning: Callable[..., Tuning], tmp_path: Path
) -> None:
    """Whenever it dies, all in all no trial runs twice, but for the one that it was in, and the end is the same."""
    speed = planted(128, 16384, 2)
    whole = tuning(Simulated(speed), folder=tmp_path).run()
    count = len((tmp_path / "journal.jsonl").read_text().splitlines()) - 1
    for dies_at in range(1, count):
        (tmp_path / "journal.jsonl").unlink()
        first, second = Simulated(speed, dies_at=dies_at), Simulated(speed)
        with pytest.raises(KeyboardInterrupt):
            tuning(first).run()
        with (tmp_path / "journal.jsonl").open("a") as file:
            file.write('{"changes": {"max-num')  # killed while it wrote
        outcome = tuning(second).run()
        assert outcome == whole
        assert len(first.started) + len(second.started) == count


def test_what_does_not_start_is_a_result(tuning: Callable[..., Tuning], tmp_path: Path) -> None:
    """It is kept with its reason, is not tried again, and the search goes on."""

    def speed(options: Options) -> float:
        return math.nan if options.get("max-num-batched-tokens", 0) > 8192 else planted(128, 8192, 1)(options)

    outcome = tuning(Simulated(speed)).run()
    assert outcome.best.changes == {"max-num-seqs": 128}
    trials = Journal(tmp_path / "journal.jsonl", {"slug": "a"}).trials
    [failed] = [trial for trial in trials if trial.failure]
    assert failed.failure == "not enough memory\nfor this"
    again = Simulated(speed)
    assert tuning(again).run() == outcome
    assert again.started == []


def test_nothing_more_is_tried_where_serve_yaml_itself_fails(tuning: Callable[..., Tuning]) -> None:
    engine = Simulated(lambda options: math.nan)
    assert tuning(engine).run().best.score == WORST
    assert len(engine.started) == 1


def test_an_engine_that_cannot_be_used_ends_the_session(
    tuning: Callable[..., Tuning], tmp_path: Path
) -> None:
    """No Docker is no result: nothing is kept."""

    class Without:
        def measure(self, serve_yaml: Path, load_: Load) -> Measured:
            raise EngineError("no Docker")

    with pytest.raises(EngineError):
        replace(tuning(Simulated(lambda options: 1.0)), engine=Without()).run()
    assert Journal(tmp_path / "journal.jsonl", {"slug": "a"}).trials == []


def test_a_host_that_changed_meanwhile_is_found_out(tuning: Callable[..., Tuning]) -> None:
    """All is faster from the second trial on: that is not the option's doing, and nothing is written."""
    engine = Simulated(lambda options: 1000.0 + 500 * (len(engine.started) > 1))
    session = tuning(engine)
    outcome = session.run()
    assert outcome.best.changes
    assert not outcome.is_better
    assert "no longer when that was measured again" in report.write(session, outcome, "a-slug", "here")[0]
    assert not (session.folder / "serve.yaml").exists()


def test_what_is_written_is_serve_yaml_with_its_evidence(tuning: Callable[..., Tuning]) -> None:
    session = tuning(Simulated(planted(128, 16384, 2)))
    lines = report.write(session, session.run(), "step3p7-flash", "vLLM 0.32.0, 8 x NVIDIA H200")
    text = (session.folder / "serve.yaml").read_text()
    assert yaml.safe_load(text) == {
        "max-num-seqs": 128, "max-num-batched-tokens": 16384, "scheduling-policy": "priority",
        "speculative-config": '{"method": "mtp", "num_speculative_tokens": 2}',
    }  # fmt: skip
    head = text[: text.index("# A comment that must stay.")]
    assert "vLLM 0.32.0, 8 x NVIDIA H200" in head
    assert "tokens/s for" in head
    assert all(line.startswith("#") for line in head.splitlines() if line)
    overlay = yaml.safe_load((session.folder / "compose.yaml").read_text())
    assert overlay["services"]["step3p7-flash"]["volumes"] == [
        f"{session.folder}/serve.yaml:/etc/octet/serve.yaml:ro"
    ]
    assert any("make build MODEL=step3p7-flash" in line for line in lines)


def test_nothing_is_written_where_nothing_is_better(tuning: Callable[..., Tuning]) -> None:
    session = tuning(Simulated(planted(256, 8192, 1)))
    assert report.write(session, session.run(), "a", "here")[-1] == "nothing was written"
    assert not (session.folder / "serve.yaml").exists()
    assert not Outcome(search.Best({}, Score(1, 0)), []).is_better


def test_targets_that_nothing_keeps_are_told(tuning: Callable[..., Tuning]) -> None:
    """Every round of the simulation has a TTFT of 50 ms."""
    session = tuning(Simulated(lambda options: 1000.0), goal=Goal(ttft_ms=40))
    lines = report.write(session, session.run(), "a", "here")
    assert "no trial keeps tokens/s with TTFT p50 <= 40 ms: the best is 25% beyond" in lines[1]
    assert lines[-1] == "nothing was written"


# -- the goal


def test_without_targets_tokens_a_second_count() -> None:
    loads = [load(90, at=0), load(100, at=1), load(95, at=2), load(50, at=0, concurrency=1)]
    assert Goal().score(loads) == Score(95, 10)


def test_with_targets_the_fastest_load_within_them_counts() -> None:
    loads = [
        load(50, concurrency=1, ttft=20),
        load(100, concurrency=8, ttft=90),
        load(200, concurrency=32, ttft=400),
    ]
    assert Goal(ttft_ms=100).score(loads).value == 100
    assert Goal(ttft_ms=30).score(loads).value == 50
    assert Goal(ttft_ms=10).score(loads).value == -1  # the best takes twice as long as it may
    assert Goal(ttft_ms=100, tpot_ms=5).score(loads).value == -1


@pytest.mark.parametrize(
    "wrong", [{"failed": 1}, {"failure": "x"}, {"output_throughput": 0}, {"output_throughput": None}]
)
def test_failed_requests_are_the_worst(wrong: dict[str, Any]) -> None:
    assert Goal().score([load(), load() | wrong]) == WORST
    assert Goal().score([]) == WORST


def test_better_is_more_than_either_spread() -> None:
    assert Score(106, 5).beats(Score(100, 5))
    assert not Score(105, 5).beats(Score(100, 0))
    assert not Score(105, 0).beats(Score(100, 5))
    assert Score(1, 0).beats(WORST)
    assert not WORST.beats(WORST)


def test_a_goal_says_what_it_wants() -> None:
    assert str(Goal()) == "tokens/s"
    assert str(Goal(500, 40)) == "tokens/s with TTFT p50 <= 500 ms and TPOT p50 <= 40 ms"


# -- the options


@pytest.mark.parametrize("slug", SLUGS)
def test_the_table_fits_every_slug(slug: str) -> None:
    """Each slug has something to try; only asked for is what may change answers."""
    shipped = yaml.safe_load((ROOT / "docker" / slug / "serve.yaml").read_text())
    gpus = yaml.safe_load((ROOT / "docker" / slug / "card.yaml").read_text())["hardware"]["gpus"]
    plain = [one.name for one in option.load(TABLE, shipped, gpus=gpus, lossy=False)]
    lossy = [one.name for one in option.load(TABLE, shipped, gpus=gpus, lossy=True)]
    assert plain[:2] == ["max-num-seqs", "max-num-batched-tokens"]
    assert ("speculative-config.num_speculative_tokens" in plain) is ("speculative-config" in shipped)
    assert "kv-cache-dtype" not in plain
    assert ("kv-cache-dtype" in lossy) is (gpus > 0)
    assert len(plain) == len(set(plain))


def test_a_ladder_has_the_shipped_step() -> None:
    """serve.yaml's own value may be one that the table does not have."""
    assert Option("a", (8, 32), shipped=20, unset=8).ladder() == [8, 20, 32]
    assert Option("a", (8, 32), shipped=None, unset=16).ladder() == [8, 16, 32]
    assert Option("a", (8, 32), shipped=None, unset=16).value_at(16) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "cannot be read"),
        ("a: 1", "must be a list of options"),
        ("- 7", "entry 1: it must be a mapping with `option`"),
        ("- {option: a, values: [1], only: [tpu]}", "some of gpu, cpu, speculative, compiled"),
        ("- {option: a, values: []}", "`values` must be a list"),
        ("- {option: a, values: [[1]]}", "`values` must be a list"),
        ("- {option: a, values: [1], unset: x}", "must be numbers"),
        ("- {option: a, values: [null], unset: 1}", "must be numbers"),
        ("- {option: a, values: [true], unset: 1}", "must be numbers"),
        ("- {option: a, values: [1], first: left}", "`first` must be up or down"),
        ("- {option: a, values: [1], colour: red}", "colour is not known"),
    ],
)
def test_a_wrong_table_is_told_with_its_entry(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "options.yaml").write_text(text)
    with pytest.raises(OptionsError, match=r"options\.yaml") as error:
        option.load(tmp_path / "options.yaml", {}, gpus=1, lossy=False)
    assert said in str(error.value)


# -- serve.yaml, changed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max-num-seqs": 64}, {"max-num-seqs": 64}),
        ({"max-num-seqs": None}, {"max-num-seqs": None}),
        ({"async-scheduling": False}, {"async-scheduling": False}),
        ({"speculative-config.num_speculative_tokens": 3},
         {"speculative-config": '{"method": "mtp", "num_speculative_tokens": 3}'}),
        ({"compilation-config.cudagraph_mode": "PIECEWISE"}, {"compilation-config": '{"cudagraph_mode": "PIECEWISE"}'}),
        ({"compilation-config.cudagraph_mode": None}, {}),
    ],
)  # fmt: skip
def test_a_change_changes_its_option_alone(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    text = variant.text(SHIPPED, changes)
    merged = yaml.safe_load(SHIPPED) | expected
    assert yaml.safe_load(text) == {name: value for name, value in merged.items() if value is not None}
    assert "# A comment that must stay." in text
    assert "# The draft." in text


@pytest.mark.parametrize("slug", SLUGS)
def test_every_slugs_file_can_be_changed(slug: str) -> None:
    """Each option of the table in each slug's own file: nothing else in it moves."""
    text = (ROOT / "docker" / slug / "serve.yaml").read_text()
    shipped = yaml.safe_load(text)
    for one in option.load(TABLE, shipped, gpus=0 if slug.endswith("-cpu") else 8, lossy=True):
        for value in one.values:
            changed = yaml.safe_load(variant.text(text, {one.name: value}))
            assert option.current(changed, one.name) == value
            outer = one.name.split(".")[0]
            assert {**changed, outer: None} == {**shipped, outer: None}


# -- the journal


def test_a_journal_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, {"slug": "a", "goal": "tokens/s"}).add(Trial({}, [load()]))
    assert len(Journal(path, {"slug": "a", "goal": "tokens/s"}).trials) == 1
    with pytest.raises(JournalError, match="measured with another goal: move it away"):
        Journal(path, {"slug": "a", "goal": "other"})


@pytest.mark.parametrize("line", ["{", "[]", '{"changes": {}, "colour": 1}', '{"loads": []}'])
def test_a_damaged_line_is_told_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, {"slug": "a"}).add(Trial({}, [load()]))
    before = path.read_text() + line + "\n"
    path.write_text(before)
    with pytest.raises(JournalError, match="line 3"):
        Journal(path, {"slug": "a"})
    assert path.read_text() == before


def trials(path: Path) -> Sequence[Trial]:
    return Journal(path, {"slug": "a"}).trials


def test_a_torn_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"slug": "a')
    assert trials(path) == []
    assert path.read_text() == '{"slug": "a"}\n'
