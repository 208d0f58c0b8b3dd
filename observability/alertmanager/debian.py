#!/usr/bin/env python3
"""/bin/alertmanager of Dockerfile.debian: Debian 12 has Alertmanager 0.25, and `url_file` came with 0.26.

The address is put into a copy of the configuration, in /tmp, which is memory.
"""

import json
import os
import sys
from pathlib import Path

OPTION, URL_FILE = "--config.file=", "/run/secrets/webhook-url"
COPY = Path("/tmp/alertmanager.yaml")  # noqa: S108 - a tmpfs of this container alone

given = [word for word in sys.argv[1:] if word.startswith(OPTION)]
others = [word for word in sys.argv[1:] if not word.startswith(OPTION)]
address = json.dumps(Path(URL_FILE).read_text().strip())
COPY.write_text(
    Path(given[-1].removeprefix(OPTION)).read_text().replace(f"url_file: {URL_FILE}", f"url: {address}")
)
os.execv(  # noqa: S606 - the program itself, its options as they came
    "/usr/bin/prometheus-alertmanager", ["alertmanager", f"{OPTION}{COPY}", *others]
)
