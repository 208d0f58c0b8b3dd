"""Not a GPU: answers on port 9400 as NVIDIA's dcgm-exporter would for eight H200s, for hosts that have none.

Written from DCGM's documented default counters: names, types and help come from observability/dcgm/counters.csv, labels
are those of dcgm-exporter 4.5.3, values move with the clock and were never measured. TWIN_XID=79: GPU 3 reports that.
"""

import csv
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import sin
from pathlib import Path

GPUS = 8
MODEL = "NVIDIA H200 (not real: written from DCGM's documented default counters)"
MEMORY_MIB, RESERVED_MIB = 143771, 551


def counters(path: Path) -> list[tuple[str, str, str]]:
    """Name, type and help of every line that is not a comment, as dcgm-exporter reads them."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return [(name.strip(), kind.strip(), says.strip()) for name, kind, says in csv.reader(lines)]


def values(gpu: int, at: float) -> dict[str, float]:
    """What a card might say at a time: busy in waves of some minutes, a little later than its neighbour."""
    wave = 0.5 + 0.5 * sin(at / 40 - gpu / 2)
    used = round(0.9 * MEMORY_MIB + 900 * wave)
    return {
        "SM_CLOCK": 1980 - round(250 * wave),
        "MEM_CLOCK": 3201,
        "GPU_TEMP": 38 + gpu % 4 + round(27 * wave),
        "MEMORY_TEMP": 45 + gpu % 4 + round(30 * wave),
        "POWER_USAGE": round(120 + 480 * wave, 1),
        "TOTAL_ENERGY_CONSUMPTION": round(360_000 * at) % 10**15,
        "GPU_UTIL": round(100 * wave),
        "MEM_COPY_UTIL": round(60 * wave),
        "FB_USED": used,
        "FB_RESERVED": RESERVED_MIB,
        "FB_FREE": MEMORY_MIB - RESERVED_MIB - used,
        "NVLINK_BANDWIDTH_TOTAL": round(90_000 * wave),
        "XID_ERRORS": int(os.environ.get("TWIN_XID") or 0) if gpu == 3 else 0,
    }


def exposition(path: Path, at: float) -> str:
    """All cards, in dcgm-exporter's format. A counter without a value above stands at 0, as errors should."""
    lines, now = [], [values(gpu, at) for gpu in range(GPUS)]
    for name, kind, says in counters(path):
        if kind == "label":
            continue
        lines += [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]
        for gpu in range(GPUS):
            value = now[gpu].get(name.removeprefix("DCGM_FI_DEV_"), 0)
            lines.append(f"{name}{{{labels(gpu, name, int(value))}}} {value}")
    return "\n".join(lines) + "\n"


def labels(gpu: int, name: str, value: int) -> str:
    """Those of dcgm-exporter outside Kubernetes; an XID has its number and words beside."""
    told = {
        "gpu": gpu,
        "UUID": f"GPU-00000000-0000-0000-0000-00000000000{gpu}",
        "pci_bus_id": f"00000000:{0x19 + 16 * gpu:02X}:00.0",
        "device": f"nvidia{gpu}",
        "modelName": MODEL,
        "Hostname": os.environ.get("NODE_NAME", "this host"),
        "DCGM_FI_DRIVER_VERSION": "0.0 (not real)",
    }
    if name == "DCGM_FI_DEV_XID_ERRORS":
        told |= {"err_code": value, "err_msg": "Unknown Error" if value else "No Error"}
    return ",".join(f'{key}="{word}"' for key, word in told.items())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = exposition(Path(os.environ["DCGM_EXPORTER_COLLECTORS"]), time.time()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A scrape every five seconds is no news."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", 9400), Handler).serve_forever()
