"""Random requests for every route of /openapi.json, by schemathesis, at the real gateway before a fake worker.

usage: python -m tests.fuzz.api SCHEMATHESIS SECONDS
Exit code 1: a server error, a gateway that did not end cleanly, or hardly a request that reached the worker.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fake_worker import FakeWorker
from tests.integration.gateway.harness import Gateway, Site, wait_until

MODEL = "any"
OPTIONS = ("--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--continue-on-failure")
FEWEST = 20  # requests that reach the worker


def main(schemathesis: str, seconds: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        worker, site = FakeWorker((MODEL,)).start(), Site(Path(folder))
        site.declare("any", MODEL)
        site.attach({"any": [worker]})
        gateway = Gateway(site)
        gateway.wait_for("any", "ready")
        document = with_model(gateway.http.get("/openapi.json").json(), Path(folder) / "openapi.json")
        words = [
            schemathesis,
            "run",
            str(document),
            "--url",
            f"http://{gateway.address}",
            "--max-time",
            seconds,
        ]
        done = subprocess.run([*words, *OPTIONS], check=False, cwd=folder)
        wait_until(lambda: gateway.in_flight() == 0, "every lease given back")
        gateway.terminate()
        code, told = gateway.end()
        reached = worker.seen.qsize()
        worker.stop()
    print(f"api: {reached} requests reached the worker; the gateway ended with {code} {told}")
    return int(done.returncode != 0 or (code, told) != (0, "") or reached < FEWEST)


def with_model(document: dict[str, Any], path: Path) -> Path:
    """The document, in which the model's name is the worker's: a random one would never be. Wrong ones are made too."""
    for methods in document["paths"].values():
        for method in methods.values():
            for content in method.get("requestBody", {}).get("content", {}).values():
                content["schema"]["properties"]["model"] = {"enum": [MODEL]}
    path.write_text(json.dumps(document))
    return path


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
