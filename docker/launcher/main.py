"""The two programs: run a worker, or check one's health (the container's health check).

Exit codes of a worker: 0 stopped as asked, 2 a setting is missing or wrong, 137 vLLM had to be killed.
Exit codes of `health`: 0 vLLM answers, 1 it does not, 2 a setting is missing or wrong; one line says more."""

import sys
from collections.abc import Sequence

from launcher.engine import admission, health
from launcher.engine.phases import Phase
from launcher.process.init import Init, unblock_stop_signals
from launcher.process.outlet import Outlet
from launcher.settings import Settings, SettingsError
from launcher.status import logs, state
from launcher.status.state import State
from launcher.supervisor import Supervisor

_HEALTH_TIMEOUT_S = 2.0  # of the container's health check
_DRAIN_S = 0.5  # for the last output, at the end, of stdout and then of stderr
_WRONG_SETTING = 2  # exit code


def main(arguments: Sequence[str]) -> int:
    """Run the health check if `arguments` is `health`, else a worker that passes them to vLLM. Return the exit code."""
    try:
        settings = Settings.from_environ()
        return _health(settings) if list(arguments) == ["health"] else _worker(settings, arguments)
    except SettingsError as error:
        sys.stderr.write(f"launcher: {error}\n")
        return _WRONG_SETTING


def _worker(settings: Settings, arguments: Sequence[str]) -> int:
    """Run as process 1 of a worker's container until a stop signal has come and vLLM has ended; return the exit code.
    Output that stdout or stderr does not take within half a second each at the end is lost."""
    with Init() as init:
        _write_first_state(settings)
        out, err = (_outlet(descriptor, settings.slug) for descriptor in (1, 2))
        exit_code = Supervisor(settings, arguments, init, out, err).run()
        for outlet in (out, err):
            outlet.drain(_DRAIN_S)
        return exit_code


def _outlet(descriptor: int, slug: str) -> Outlet:
    """Return an outlet for stdout (1) or stderr (2) that writes a line of the launcher's log where it dropped some."""

    def note(lost: int) -> bytes:
        problem = "nobody read the output for so long that some was dropped here"
        return logs.line(slug, "error", "output-lost", {"bytes": lost, "problem": problem})

    return Outlet(descriptor, note)


def _write_first_state(settings: Settings) -> None:
    """Make the state folder, remove a file left by an earlier container that would refuse clients (`admission`), and
    write the first state. Raises `SettingsError`; later failures are only logged: by then vLLM may be serving."""
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        admission.open_to_all(settings.state_dir)
        state.write(settings.state_file, State(settings.slug, Phase.WEIGHTS_CHECK))
    except OSError as error:
        raise SettingsError(
            f"LAUNCHER_STATE_DIR {settings.state_dir} cannot be written ({error.strerror}): "
            "mount a tmpfs there that this user may write"
        ) from None


def _health(settings: Settings) -> int:
    """Ask vLLM, print one line with the launcher's state, and return the exit code. Docker runs this beside the worker,
    as the container's health check. Stop signals, which `__main__` blocks for a worker's `Init`, are let through."""
    unblock_stop_signals()
    problem = health.check(settings.port, _HEALTH_TIMEOUT_S)
    known = state.read(settings.state_file)
    doing = known.describe() if known else "no launcher has written its state"
    said = f"healthy: {doing}\n" if problem is None else f"unhealthy ({problem}): {doing}\n"
    sys.stdout.buffer.write(said.encode("utf-8", "backslashreplace"))  # in any locale
    return 0 if problem is None else 1
