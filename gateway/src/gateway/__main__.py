"""`python -m gateway` runs the gateway; `python -m gateway new-key [name]` prints a key and its line for the key file.

Exit codes: 0 drained after a signal · 2 configuration · 3 port in use.
"""

import gc
import socket
import sys

import uvloop

from gateway.app import Gateway
from gateway.errors import ConfigError, PortInUse
from gateway.keys import hash_key, new_key
from gateway.logs import EventLog
from gateway.server import listen, log_warnings, raise_file_limit, serve
from gateway.settings import Settings, load_settings


def main() -> int:
    """The process boundary: one line and a distinct exit code for what the operator can mend."""
    try:
        return print_key(sys.argv[2:]) if sys.argv[1:2] == ["new-key"] else run(load_settings())
    except ConfigError as error:
        return fail(error, 2)
    except PortInUse as error:
        return fail(error, 3)


def run(settings: Settings) -> int:
    log_warnings()
    raise_file_limit()
    log = EventLog()
    with (
        listen(settings, settings.port, "GATEWAY_PORT") as data_socket,
        listen(settings, settings.ops_port, "GATEWAY_OPS_PORT") as ops_socket,
    ):
        uvloop.run(run_gateway(settings, data_socket, ops_socket, log))
    return 0


async def run_gateway(
    settings: Settings, data_socket: socket.socket, ops_socket: socket.socket, log: EventLog
) -> None:
    gateway = Gateway(settings, log)
    spare_the_collector()
    await serve(gateway, data_socket, ops_socket, log)


def spare_the_collector() -> None:
    """What is loaded by now stays, and requests leave hardly a cycle: the collector need not look every moment."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def print_key(words: list[str]) -> int:
    """Prints a new key on standard error, to be kept by its user, and its hashed line on standard output."""
    key = new_key()
    print(f"key, shown this once: {key}", file=sys.stderr)  # noqa: T201  # this command's purpose
    print(" ".join([f"sha256:{hash_key(key.encode())}", *words]))  # noqa: T201
    return 0


def fail(error: Exception, code: int) -> int:
    sys.stderr.write(f"gateway: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
