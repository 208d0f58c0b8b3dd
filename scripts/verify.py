"""Transformers loads a slug's published weights on the CPU and generates a few tokens: the check before vLLM.

Runs inside the slug's worker image (scripts/verify) and says one line, whatever happens. Exit codes: 0 tokens were
generated · 2 a setting is wrong · 3 the weights are not published, or not what READY.json says · 4 they need more
memory than there is · 5 Transformers cannot load or run them · 6 they run, but tensors are missing or the results are
no numbers.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.resources.weights import Check, Snapshot, WeightsError, find
from launcher.settings import Settings, SettingsError

PROMPT = "Explain the significance of the number 42."
NEW_TOKENS = 24
SETTING, NOT_READY, MEMORY, NOT_LOADED, USELESS = 2, 3, 4, 5, 6
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class VerifyError(Exception):
    """The weights did not pass; `code` is the exit code, the text the one line to print."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, as Transformers made them. Typed loosely: the worker image alone has the library."""

    model: Any
    tokenizer: Any
    seconds: float


def main(words: list[str]) -> int:
    """Check, load, generate; returns the exit code."""
    slug = os.environ.get("LAUNCHER_SLUG", "")
    try:
        print(f"verify: {slug}: {verify(Settings.from_environ(), words[0] if words else PROMPT)}")
        return 0
    except SettingsError as error:
        return refuse(slug, str(error), SETTING)
    except WeightsError as error:
        return refuse(slug, f"{error}: run docker compose up {slug}-weights", NOT_READY)
    except VerifyError as error:
        return refuse(slug, str(error), error.code)
    except OSError as error:
        return refuse(slug, f"{error.filename} cannot be read: {error.strerror}", NOT_READY)


def refuse(slug: str, why: str, code: int) -> int:
    sys.stderr.write(f"verify: {slug}: {' '.join(why.split())}\n")
    return code


def verify(settings: Settings, prompt: str) -> str:
    """What a good result is called; raises `WeightsError` or `VerifyError`."""
    snapshot = find(settings.weights_dir, settings.slug)
    Check().run(snapshot)
    size = sum(file.stamp.size for file in snapshot.files)
    if size > (free := free_memory()):
        raise VerifyError(MEMORY, f"the weights are {size:,} bytes and {free:,} bytes of memory are free")
    try:
        loaded = load(snapshot, trusted(settings.serve_config))
        said = generate(loaded, prompt)
    except VerifyError:
        raise
    except Exception as error:  # noqa: BLE001  # a process boundary: a checkpoint's own code may raise anything
        raise VerifyError(
            NOT_LOADED, f"Transformers cannot run it: {type(error).__name__}: {error}"
        ) from None
    name = type(loaded.model).__name__
    return f"{name}, {size:,} bytes, snapshot {snapshot.digest[:16]}, loaded in {loaded.seconds:.1f} s, says {said!r}"


def free_memory() -> int:
    """Bytes that this container may still take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else "max"
    return free if limit == "max" else min(free, int(limit))


def trusted(serve_config: Path) -> bool:
    """Whether the slug is served with the code that comes with its weights."""
    import yaml

    return bool(yaml.safe_load(serve_config.read_text()).get("trust-remote-code", False))


def load(snapshot: Snapshot, trust: bool) -> Loaded:
    """Load everything on the CPU; raises `VerifyError` where tensors are missing."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    begun = time.monotonic()
    where: dict[str, Any] = {
        "pretrained_model_name_or_path": snapshot.directory,
        "trust_remote_code": trust,
        "local_files_only": True,
    }
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model, report = AutoModelForCausalLM.from_pretrained(**where, dtype="auto", output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise VerifyError(USELESS, f"{len(missing)} tensors are missing, {missing[0]} first")
    return Loaded(model, tokenizer, time.monotonic() - begun)


def generate(loaded: Loaded, prompt: str) -> str:
    """The first tokens of an answer, the likeliest each time; raises `VerifyError` if the model computes no numbers."""
    chat = [{"role": "user", "content": prompt}]
    inputs = loaded.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    made = loaded.model.generate(
        **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    if any(bool(step.isnan().any()) for step in made.logits):
        raise VerifyError(USELESS, "the model computes values that are no numbers: the weights are damaged")
    new = made.sequences[0][inputs["input_ids"].shape[1] :]
    said = loaded.tokenizer.decode(new, skip_special_tokens=True).strip()
    if not said:
        raise VerifyError(USELESS, f"the model generated {len(new)} tokens and no text")
    return str(said)


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    sys.exit(main(sys.argv[1:]))
