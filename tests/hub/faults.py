"""What a hub can be told to get wrong: a list of faults, each spent after so many uses."""

import threading
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "cut",
    "corrupt",
    "status",
    "no-sha256",
    "entry",
    "empty",
    "stall",
    "size",
    "redirect",
    "linked",
    "drip",
    "endless",
]
LISTING = "<listing>"
"""The path that stands for the listing in a ``status``, ``drip`` or ``endless`` fault."""


@dataclass
class Fault:
    """One thing to get wrong about *path*.

    cut: close the connection after *value* bytes of the body · corrupt: flip a bit of byte *value* ·
    status: answer with code *value*, and with *retry_after* if there is one · no-sha256: list the file without one ·
    entry: list *entry* as well, whatever it says · empty: answer 200 with no byte, as broken caches do ·
    stall: send nothing after *value* bytes, and keep the connection · size: list the file as *value* bytes ·
    redirect: send the client to port *value* of localhost · linked: no fault, the file's sha256 in `X-Linked-ETag`, as
    hubs' content networks send it · drip: send *value* bytes a second, one by one · endless: send without an end.
    *times* is how often; -1 means always.
    """

    kind: Kind
    path: str = ""
    value: int = 0
    times: int = -1
    entry: dict[str, Any] = field(default_factory=dict)
    retry_after: str = ""


class Faults:
    """The faults still to come; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def set(self, *faults: Fault) -> None:
        """Replace them all."""
        with self._lock:
            self._faults = list(faults)

    def take(self, kind: Kind, path: str) -> Fault | None:
        """The fault of *kind* for *path*, if one is left; using it counts."""
        with self._lock:
            fault = next((f for f in self._faults if (f.kind, f.path) == (kind, path) and f.times), None)
            if fault:
                fault.times -= 1
            return fault

    def entries(self) -> list[dict[str, Any]]:
        """Every made-up listing entry."""
        with self._lock:
            return [f.entry for f in self._faults if f.kind == "entry"]
