"""Makes the ops port's answers from a state: `/metrics` for Prometheus, `/state` for the gateway. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from launcher.engine.phases import Phase
from launcher.status.history import left_s
from launcher.status.state import State, Trouble

Disks = Mapping[str, tuple[int, int]]  # free and total bytes of each disk, by its name (`weights`, `cache`)


def exposition(state: State, disks: Disks, now: datetime | None = None) -> str:
    """Return /metrics in Prometheus' text format, as of `now`. The scrape target adds slug and worker as labels."""
    return "\n".join([*_metrics(state, disks, now or datetime.now(UTC)), ""])


def report(state: State, now: datetime | None = None) -> dict[str, object]:
    """Return /state: the fields of the state, and `left_s`, the estimated seconds until ready (None: unknown)."""
    return asdict(state) | {"left_s": _left_s(state, now or datetime.now(UTC))}


def _metrics(state: State, disks: Disks, now: datetime) -> Iterator[str]:
    """Yield the lines of `exposition`; docs/metrics.md says what each means."""
    yield from _gauge("launcher_phase", _by("phase", {phase: phase is state.phase for phase in Phase}))
    seconds = {**state.seconds, state.phase: round(state.age_s(now), 3)}
    yield from _gauge("launcher_phase_seconds", _by("phase", seconds))
    yield from _gauge("launcher_usual_phase_seconds", _by("phase", state.usual))
    yield from _gauge("launcher_start_left_seconds", _one(_left_s(state, now)))
    yield from _gauge("launcher_loaded_ratio", _one(_loaded(state)))
    yield from _gauge("launcher_weights_bytes", _one(state.weights_bytes))
    outcome = {None: "none", True: "hit", False: "miss"}[state.compile_cache_hit]
    outcomes = {word: word == outcome for word in ("hit", "miss", "none")}
    yield from _gauge("launcher_compile_cache", _by("outcome", outcomes))
    yield from _gauge("launcher_trouble", _by("trouble", {kind: kind is state.trouble for kind in Trouble}))
    yield from _counter("launcher_starts_total", state.run)
    yield from _counter("launcher_crashes_total", state.crashes)
    yield from _counter("launcher_hangs_total", state.hangs)
    yield from _gauge(
        "launcher_disk_free_bytes", _by("disk", {name: free for name, (free, _) in disks.items()})
    )
    yield from _gauge("launcher_disk_bytes", _by("disk", {name: size for name, (_, size) in disks.items()}))


def _left_s(state: State, now: datetime) -> float | None:
    """Return the estimated seconds until ready, rounded to a tenth; None if unknown (`history.left_s`)."""
    left = left_s(state.usual, state.phase, state.age_s(now), state.percent)
    return None if left is None else round(left, 1)


def _loaded(state: State) -> float | None:
    """Return the loaded part of the weights, 0 to 1, as vLLM reports it; 1 after loading, None if unknown."""
    if state.percent is not None:
        return state.percent / 100
    return 1.0 if Phase.LOADING in state.seconds else None


def _by(label: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return a sample for each value of the label; the keys are Prometheus label sets."""
    return {f'{{{label}="{name}"}}': value for name, value in values.items()}


def _one(value: float | None) -> dict[str, float]:
    """Return one sample without labels; no sample if the value is None."""
    return {} if value is None else {"": value}


def _gauge(name: str, samples: Mapping[str, float]) -> Iterator[str]:
    """Yield a gauge's lines; none at all without samples, since an unknown value is left out."""
    if samples:
        yield f"# TYPE {name} gauge"
    for labels, value in samples.items():
        yield f"{name}{labels} {float(value):.15g}"


def _counter(name: str, value: int) -> Iterator[str]:
    """Yield the two lines of a counter, which has no labels."""
    yield f"# TYPE {name} counter"
    yield f"{name} {value}"
