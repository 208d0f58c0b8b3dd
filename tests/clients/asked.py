"""What every program here is given, and what it says: one JSON object on standard output."""

import json
import os
from typing import Any

GATEWAY = os.environ["GATEWAY"]  # http://host:port
MODEL = os.environ["MODEL"]
MESSAGES = json.loads(os.environ["MESSAGES"])
NOBODY = "no-such-model"


def say(**found: Any) -> None:
    """text: of a whole answer; pieces: of a streamed one; status and error: of a request for NOBODY."""
    print(json.dumps(found, ensure_ascii=False))
