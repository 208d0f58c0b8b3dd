"""Trials in the slug's own image: a container of its own with the trial's serve.yaml. No client reaches it, since the
gateway finds services only. `bench/serve.py` runs inside of it."""

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.tune.engine import WARMING, EngineError, Load, Measured, StartError

_LOOK_EVERY_S = 2.0
_SAID = 600  # characters of a program's last words that are kept
_LOAD_AT_MOST_S = 6 * 3600
# Troubles of the launcher that no option causes.
_HOSTS_FAULT = ("weights-missing", "weights-corrupt", "gpus-busy")


class ComposeEngine:
    """Starts `slug` by Compose from the repository at `root`; a start has `within_s` seconds."""

    def __init__(
        self, root: Path, slug: str, model: str, within_s: float, *, trust_remote_code: bool
    ) -> None:
        self._root, self._slug, self._model, self._within_s = root, slug, model, within_s
        self._trust = ["--trust-remote-code"] if trust_remote_code else []
        self._name = f"octet-tune-{slug}"

    def check(self) -> None:
        """Raise EngineError if there is no Docker, or the slug runs: it has the GPUs, and would be in the way."""
        if self._docker("compose", "ps", "--status", "running", "--quiet", self._slug, or_fail=True).strip():
            raise EngineError(f"{self._slug} runs; stop it first: docker compose stop {self._slug}")

    def measure(self, serve_yaml: Path, load: Load) -> Measured:
        """Run one trial (`engine.Engine`)."""
        self._remove()  # of a session that was killed
        try:
            begun = time.monotonic()
            self._start(serve_yaml)
            self._await_ready(begun + self._within_s)
            return Measured(time.monotonic() - begun, self._load(load))
        finally:
            self._remove()

    def _start(self, serve_yaml: Path) -> None:
        words = ["compose", "--progress", "quiet", "--profile", self._slug, "run", "--detach", "--no-deps"]
        mounts = {
            serve_yaml.resolve(): "/etc/octet/serve.yaml",
            self._root / "bench/serve.py": "/program/serve.py",
        }
        volumes = [word for here, there in mounts.items() for word in ("--volume", f"{here}:{there}:ro")]
        self._docker(*words, "--name", self._name, *volumes, self._slug, or_fail=True)

    def _await_ready(self, deadline: float) -> None:
        """Wait until the launcher says that vLLM is ready. Raises StartError, EngineError."""
        while True:
            state = self._state()
            if state.get("phase") == "ready":
                return
            if state.get("trouble") in _HOSTS_FAULT:
                raise EngineError(str(state.get("problem")))
            if state.get("trouble"):
                raise StartError(str(state.get("problem"))[-_SAID:])
            if self._docker("inspect", "--format", "{{.State.Running}}", self._name).strip() != "true":
                raise StartError(
                    f"its container ended: {self._docker('logs', '--tail', '5', self._name)[-_SAID:]}"
                )
            if time.monotonic() >= deadline:
                raise StartError(f"not ready within {self._within_s:g} s, in phase {state.get('phase')}")
            time.sleep(_LOOK_EVERY_S)

    def _state(self) -> dict[str, Any]:
        """Return the launcher's state; nothing while it has none."""
        try:
            state = json.loads(self._docker("exec", self._name, "cat", "/run/octet/state.json"))
        except ValueError:
            return {}
        return state if isinstance(state, dict) else {}

    def _load(self, load: Load) -> Sequence[dict[str, Any]]:
        """Return every round that counts. Raises StartError if not even a first request was answered."""
        words = ["--model", self._model, "--tokenizer", f"/weights/slugs/{self._slug}", *self._trust]
        words += ["--way", "direct=http://127.0.0.1:8000", *load.words()]
        done = self._run(
            "exec", self._name, "python3", "/program/serve.py", *words, at_most_s=_LOAD_AT_MOST_S
        )
        return rounds(done)

    def _remove(self) -> None:
        self._docker("stop", "-t", "150", self._name)
        self._docker("rm", "--force", "--volumes", self._name)

    def _docker(self, *words: str, or_fail: bool = False) -> str:
        """Run `docker`, return what it printed; `or_fail`: raise EngineError if it did not end well."""
        done = self._run(*words)
        if or_fail and done.returncode:
            raise EngineError(f"docker {words[0]} failed: {(done.stdout + done.stderr)[-_SAID:].strip()}")
        return done.stdout

    def _run(self, *words: str, at_most_s: float = 300) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["docker", *words],
                cwd=self._root,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=at_most_s,
            )
        except OSError as error:
            raise EngineError(f"docker cannot be started: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise EngineError(f"docker {words[0]} did not end within {at_most_s:g} s") from None


def rounds(done: "subprocess.CompletedProcess[str]") -> Sequence[dict[str, Any]]:
    """Return the rounds that count of those that `bench/serve.py` printed. Raises StartError if it printed none."""
    try:
        return [load for load in json.loads(done.stdout)["loads"] if load["round"] >= WARMING]
    except (ValueError, KeyError, TypeError):
        raise StartError(f"it answered no request: {done.stderr[-_SAID:].strip()}") from None
