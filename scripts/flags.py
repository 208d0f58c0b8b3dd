"""Whether vLLM's own program accepts what the launcher calls it with. Runs in a worker image: check_flags.py starts it.

usage: flags.py [WHEEL] < JSON     a list of {slug, environment, arguments, architectures}: what Compose hands to each
                                   slug's launcher, and the classes of vLLM that the card names. Without WHEEL, when
                                   the image is the slug's own, they are imported too

With WHEEL its Python files are put before those of the image. vLLM's program runs up to the point where it would load
the model; what it prints is its own. One process a slug, since vLLM keeps what it was told.
Exit codes: 0 all are accepted · 10 one is refused.
"""

import json
import os
import sys
import tempfile
import zipfile
from argparse import Namespace
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

REFUSED = 10
CODE = (".py", ".json", ".jinja")


def main(words: list[str]) -> int:
    if words:
        sys.path.insert(0, unpacked(Path(words[0])))
    import vllm.entrypoints.cli.serve  # noqa: F401  - once, not in every child
    from vllm import platforms
    from vllm.platforms.cpu import CpuPlatform

    platforms._current_platform = CpuPlatform()  # a build for GPUs finds none, and would not begin to parse

    return max([refused(asked, imports=not words) for asked in json.load(sys.stdin)], default=0)


def unpacked(wheel: Path) -> str:
    """A folder with what of the wheel the parser needs: its text; compiled parts need a GPU's driver."""
    folder = tempfile.mkdtemp()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.endswith(CODE)])
    return folder


def refused(asked: dict[str, Any], *, imports: bool) -> int:
    """0 if vLLM accepts it, else REFUSED; one line says so, after vLLM's own."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        call(asked, imports)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    verdict = "accepted" if code == 0 else "REFUSED"
    print(f"{asked['slug']}: {verdict} by vLLM {identity()}", flush=True)
    return REFUSED if code else 0


def call(asked: dict[str, Any], imports: bool) -> None:
    """Runs vLLM's program with the launcher's command line, in place of this one. Never returns."""
    from vllm.entrypoints.cli.main import main as vllm_program
    from vllm.entrypoints.cli.serve import ServeSubcommand

    from launcher.engine.command import command_line
    from launcher.settings import Settings

    settings = Settings.from_environ(asked["environment"])
    ServeSubcommand.cmd = staticmethod(partial(would_load, asked["architectures"], imports))
    sys.argv = list(command_line(settings, Path("/weights/snapshot"), asked["arguments"]))
    vllm_program()
    sys.exit(f"{sys.argv}: that does not serve")  # `would_load` was not reached


def would_load(architectures: list[str], imports: bool, arguments: Namespace) -> None:
    """vLLM's further checks of names that its parser lets pass, its classes for the model, then the end."""
    from vllm.config import SpeculativeConfig
    from vllm.entrypoints.launchers.launcher import validate_api_server_args

    arguments.structured_outputs_config.reasoning_parser = arguments.reasoning_parser
    validate_api_server_args(arguments)
    draft = arguments.speculative_config or {}
    unknown = set(draft) - {field.name for field in fields(SpeculativeConfig)}
    if unknown:
        sys.exit(f"speculative-config: {', '.join(sorted(unknown))} is not known")
    for name in architectures:
        look_up(name, imports)
    sys.exit(0)


def look_up(architecture: str, imports: bool) -> None:
    """Ends the program if vLLM has no such class; an import that fails says so itself."""
    from vllm.model_executor.models.registry import ModelRegistry

    if architecture not in ModelRegistry.models:
        sys.exit(f"weights.architectures: {architecture} is no model class of this vLLM")
    if imports:
        ModelRegistry.models[architecture].load_model_cls()


def identity() -> str:
    """Version and commit of the vLLM that was asked."""
    from vllm import _version

    return f"{_version.__version__} ({_version.__commit_id__ or 'no commit named'})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
