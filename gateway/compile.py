"""Compiles the modules that every request passes, with mypyc: the same source, a third of the cost less.

usage: python compile.py TARGET    TARGET becomes a copy of src/ in which they are extensions of this interpreter
Needs mypy (compile.lock), a C compiler and Python's headers. Exit code 1: mypyc has said why.
"""

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "src"
# Not among them: control (FastAPI looks into its functions), discovery and the root (they start, look and end).
ROOMS = (
    "api",
    "balancing",
    "body",
    "config",
    "fleet",
    "http",
    "limits",
    "proxy",
    "server",
    "telemetry",
    "upstream",
    "usage",
)
PLAIN = {
    "api/errors.py": "mypyc takes no two attributes of a class set at once",
    "balancing/selection.py": "mypyc fails at its generic dataclass with slots",
    "config/catalog.py": "a cached_property would become a property",
    "config/key_edit.py": "PyYAML's nodes, and no request passes it",
    "config/key_file.py": "pydantic's",
    "config/model_options.py": "pydantic's",
    "config/policies.py": "pydantic's",
    "config/settings.py": "pydantic's",
    "config/yaml_file.py": "its loader is a kind of PyYAML's",
    "limits/redis_address.py": "only gateways that share limits have it",
    "limits/redis_identity.py": "likewise",
    "limits/redis_store.py": "likewise; its coroutines wait for redis-py",
    "telemetry/log_writer.py": "its work is done by a thread that waits; C has a word `__thread` of its own",
    "telemetry/merging.py": "its collector is a kind of the library's",
    "usage/store.py": "SQLite's, and no request passes it",
    "usage/writer.py": "its work is done by a thread that waits",
}


def modules() -> list[str]:
    found = [
        path.relative_to(SOURCE)
        for room in ROOMS
        for path in sorted((SOURCE / "gateway" / room).glob("*.py"))
    ]
    return [
        str(path) for path in found if path.name != "__init__.py" and str(Path(*path.parts[1:])) not in PLAIN
    ]


def main(target: Path) -> int:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(SOURCE, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    words = [sys.executable, "-m", "mypyc", "--ignore-missing-imports", "--follow-imports=silent", *modules()]
    done = subprocess.run(words, cwd=target, capture_output=True, text=True)  # noqa: S603  # our own words
    shutil.rmtree(target / "build", ignore_errors=True)
    shutil.rmtree(target / ".mypy_cache", ignore_errors=True)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-4000:])
    return done.returncode and 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
