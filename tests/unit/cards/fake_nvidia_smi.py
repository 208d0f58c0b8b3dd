#!/usr/bin/env python3
"""An `nvidia-smi` that answers --query-gpu from $FAKE_NVIDIA_SMI as a real one of driver 580 does.

The file holds {"gpus": [{field: value}], "unknown": [fields that this driver does not know]}, or
{"says": text, "code": exit code} for one that answers something else.
"""

import json
import os
import sys
from pathlib import Path


def main(words: list[str]) -> int:
    host = json.loads(Path(os.environ["FAKE_NVIDIA_SMI"]).read_text())
    if "says" in host:
        sys.stdout.write(host["says"])
        return int(host["code"])
    query, style = words
    assert style == "--format=csv,noheader,nounits", style
    fields = query.removeprefix("--query-gpu=").split(",")
    for field in fields:
        if field in host["unknown"]:
            sys.stdout.write(f'Field "{field}" is not a valid field to query.\n\n')
            return 2
    sys.stdout.writelines(", ".join(str(gpu[field]) for field in fields) + "\n" for gpu in host["gpus"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
