"""A clock that jumps by an hour moves no deadline: the wall clock is for people alone."""

import re
from pathlib import Path

import gateway

WALL_CLOCK = re.compile(r"time\.time\(\)|datetime\.now|fromtimestamp")
FOR_PEOPLE = {
    "app.py",  # when the models were created, which clients show
    "logs.py",  # when a line was written
    "request.py",  # the header `date`
}


def test_only_what_people_read_asks_the_wall_clock() -> None:
    """Deadlines, ejections, idle connections and queues are on a clock that never goes back."""
    sources = Path(gateway.__file__).parent.glob("*.py")
    assert {path.name for path in sources if WALL_CLOCK.search(path.read_text())} == FOR_PEOPLE
