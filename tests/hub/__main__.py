"""``python -m tests.hub --root DIR --port N``: serve the models under DIR until stopped."""

import argparse
import signal
import threading
from pathlib import Path

from .server import Hub


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="hub", description="A local ModelScope hub.")
    parser.add_argument(
        "--root", type=Path, required=True, help="directory of <owner>/<name>/ model directories"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--rate", type=int, default=0, help="bytes a second per connection; 0 means no limit")
    parser.add_argument("--token", default="", help="refuse requests without this access token")
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with Hub(options.root, options.host, options.port, options.rate, options.token).running() as hub:
        print(f"hub: {options.root} on http://{options.host}:{hub.port}", flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
