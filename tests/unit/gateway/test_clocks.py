"""A clock that jumps by an hour moves no deadline: the wall clock is for people, and for the dates that they set."""

import re
from pathlib import Path

import gateway

WALL_CLOCK = re.compile(r"time\.time\(\)|datetime\.now|fromtimestamp")
FOR_PEOPLE = {
    "config/api_keys.py",  # from when and until when a key is valid
    "config/certificate.py",  # until when it is valid
    "key_commands.py",  # when it was revoked
    "app.py",  # when the models were created, which clients show
    "limits/calendar.py",  # which month it is
    "telemetry/audit.py",  # whether it has jumped
    "telemetry/daily_files.py",  # which day it is
    "telemetry/logs.py",  # when a line was written
    "server/request.py",  # the header `date`
    "usage/store.py",  # which month it is
}


def test_only_what_people_read_asks_the_wall_clock() -> None:
    """Deadlines, ejections, idle connections and queues are on a clock that never goes back."""
    root = Path(gateway.__file__).parent
    found = {
        str(path.relative_to(root)) for path in root.rglob("*.py") if WALL_CLOCK.search(path.read_text())
    }
    assert found == FOR_PEOPLE
