"""An end of vLLM is a configuration error only where another start would end the same way."""

from __future__ import annotations

import pytest

from launcher.process.classify import Kind, Verdict, classify, signal_name

_USAGE = [
    "usage: vllm serve [model_tag] [options]",
    "vllm: error: unrecognized arguments: --enable-reasoning",
]
_PYDANTIC_MODEL = [
    "Traceback (most recent call last):",
    '  File "/venv/bin/vllm", line 8, in <module>',
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
    "  Value error, User-specified max_model_len (99999999) is greater than the derived max_model_len "
    "[type=value_error, input_value=ArgsKwargs((), {'model': '/weights'}), input_type=ArgsKwargs]",
    "    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
]
_PYDANTIC_FIELD = [
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig",
    "block_size",
    "  Input should be a valid integer [type=int_parsing, input_value='x', input_type=str]",
    "    For further information visit https://errors.pydantic.dev/2.14/v/int_parsing",
]
_ENGINE_ECHO = [
    '(APIServer pid=1)   File "/venv/vllm/v1/engine/utils.py", line 1431, in wait_for_engine_startup',
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {'EngineCore': 1}",
]
_NO_ROOM_FOR_CACHE = [
    "(EngineCore pid=88) ERROR 11-20 20:00:00 [core.py:1510] EngineCore failed to start.",
    "(EngineCore pid=88) ERROR 11-20 20:00:00 [core.py:1510] Traceback (most recent call last):",
    "(EngineCore pid=88) ERROR 11-20 20:00:00 [core.py:1510] ValueError: To serve at least one request with "
    "the models's max seq len (262144), 40.0 GiB KV cache is needed.",
]
_CARD_STILL_FULL = [
    "(Worker_TP0 pid=99) ERROR 11-20 20:00:00 [multiproc_executor.py:9] ValueError: Free memory on device "
    "cuda:0 (3.1/139.8 GiB) on startup is less than desired GPU memory utilization (0.9, 125.8 GiB).",
    "(EngineCore pid=88) Exception: WorkerProc initialization failed due to an exception in a background "
    "process. See stack trace for root cause.",
]


@pytest.mark.parametrize(
    ("exit_code", "lines", "words"),
    [
        (2, _USAGE, "unrecognized arguments: --enable-reasoning"),
        (127, ["sh: 1: vllm: not found"], "vllm: not found"),
        (1, _PYDANTIC_MODEL, "max_model_len (99999999) is greater"),
        (1, _PYDANTIC_FIELD, "block_size Input should be a valid integer"),
        (1, _NO_ROOM_FOR_CACHE + _ENGINE_ECHO, "40.0 GiB KV cache is needed"),
        (1, ["KeyError: 'invalid tool call parser: hermess (chose from { hermes })'"], "hermess"),
        (
            1,
            ["FileNotFoundError: [Errno 2] No such file or directory: '/etc/octet/serve.yaml'"],
            "serve.yaml",
        ),
        (1, ["ModuleNotFoundError: No module named 'flashinfer'"], "flashinfer"),
    ],
)
def test_a_wrong_setting_is_named_in_vllms_own_words(exit_code: int, lines: list[str], words: str) -> None:
    """The cause is one bounded line, without the noise around it."""
    verdict = classify(exit_code, lines, has_answered=False)
    assert verdict.kind == Kind.CONFIGURATION
    assert verdict.cause is not None
    assert words in verdict.cause
    assert "\n" not in verdict.cause
    assert "[type=" not in verdict.cause
    assert len(verdict.cause) <= 600


@pytest.mark.parametrize(
    ("exit_code", "lines"),
    [
        (-9, []),
        (-11, ["ValueError: whatever was printed before"]),
        (0, ["INFO: Application shutdown complete."]),
        (1, []),
        (1, _ENGINE_ECHO),
        (1, ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."]),
        (1, ["OSError: [Errno 98] Address already in use"]),
        (1, ["KeyError: 'model.layers.0.mlp'"]),
        (1, _CARD_STILL_FULL + _ENGINE_ECHO),
    ],
)
def test_what_may_pass_is_a_crash(exit_code: int, lines: list[str]) -> None:
    """Signals, exits nobody asked for, and errors that another process can cause are tried again."""
    assert classify(exit_code, lines, has_answered=False).kind == Kind.CRASH


@pytest.mark.parametrize(("exit_code", "lines"), [(2, _USAGE), (1, _PYDANTIC_MODEL)])
def test_a_run_that_was_ready_had_right_settings(exit_code: int, lines: list[str]) -> None:
    """Whatever it prints at its end, such a run is started again."""
    assert classify(exit_code, lines, has_answered=True).kind == Kind.CRASH


def test_the_cause_of_a_crash_is_the_root_and_not_its_echo() -> None:
    """The parents' reports that a child failed do not hide what the child said."""
    lines = ["(EngineCore pid=8) RuntimeError: CUDA error: an illegal memory access", *_ENGINE_ECHO]
    expected = Verdict(Kind.CRASH, "RuntimeError: CUDA error: an illegal memory access")
    assert expected == classify(1, lines, has_answered=True)


def test_signals_have_names() -> None:
    """Negative exit codes are signals; others are not; real-time ones keep their number."""
    assert [signal_name(-9), signal_name(-40), signal_name(1)] == ["SIGKILL", "signal 40", None]


def test_a_standstill_is_a_hang_whatever_the_exit_code_says() -> None:
    """The launcher itself ended that run, so neither code nor last lines are the cause."""
    lines = ["pydantic_core._pydantic_core.ValidationError: 1 validation error for X"]
    for exit_code in (0, 1, 2, -9):
        verdict = classify(exit_code, lines, has_answered=True, standstill="nothing moves")
        assert verdict == Verdict(Kind.HANG, "nothing moves")
