"""`python -m gateway` runs the gateway; `python -m gateway keys ...` makes, lists, replaces and revokes API keys;
`python -m gateway usage ...` tells what they have used;
`python -m gateway new-key [name]` prints a key and its line for a key file without rights.
Exit codes: 0 drained after a signal · 2 configuration · 3 port in use."""

import gc
import socket
import sys
from contextlib import ExitStack, closing

import uvloop

from gateway.api.errors import ConfigError, PortInUse
from gateway.app import Gateway
from gateway.config.api_keys import hash_key, new_key
from gateway.config.key_file import without_secrets
from gateway.config.settings import Settings, load_settings, read_settings
from gateway.key_commands import main as run_key_command
from gateway.limits.table import Table
from gateway.processes import serve_all
from gateway.serve import listen, listen_by_several, log_warnings, raise_file_limit, serve
from gateway.telemetry.logs import EventLog
from gateway.usage.pipe import ToParent
from gateway.usage_commands import main as run_usage_command


def main() -> int:
    """Run the command that this process was given; return the exit code. What an operator can mend becomes one line."""
    try:
        return command(sys.argv[1:])
    except ConfigError as error:
        return fail(error, 2)
    except PortInUse as error:
        return fail(error, 3)


def command(words: list[str]) -> int:
    """Run `new-key`, or `process DATA OPS USAGE MEMORY NUMBER` (descriptors of open sockets and of the memory for
    limits, and which process it is), with which `processes.Child` starts one of several processes; for any other
    words, or none, serve. Return the exit code."""
    match words:
        case ["new-key", *name]:
            return print_key(name)
        case ["keys", *rest]:
            return run_key_command(rest, read_settings())
        case ["usage", *rest]:
            return run_usage_command(rest, read_settings())
        case ["process", data, ops, usage, memory, number]:
            return run_child(load_settings(), int(data), int(ops), int(usage), int(memory), int(number))
    return run(load_settings())


def run(settings: Settings) -> int:
    """Serve and return the exit code. The ports are taken first, so that one in use ends the start at once."""
    raise_file_limit()
    with ExitStack() as stack:
        log = stack.enter_context(closing(EventLog()))
        log_warnings(log)
        data = [stack.enter_context(one) for one in listen_by_several(settings)]
        ops = stack.enter_context(listen(settings, settings.ops_port, "GATEWAY_OPS_PORT"))
        if settings.processes > 1:
            return uvloop.run(serve_all(settings, data, ops, log))
        uvloop.run(run_gateway(settings, log, data[0], ops, None, None))
    return 0


def run_child(settings: Settings, data: int, ops: int, usage: int, memory: int, number: int) -> int:
    """Run one of several processes on the parent's sockets (`processes.Child` starts it); return the exit code. memory,
    number: of the table that all of them share, and which of them this is."""
    with closing(EventLog()) as log:
        log_warnings(log)
        sockets = socket.socket(fileno=data), socket.socket(fileno=ops)
        sink = ToParent(socket.socket(fileno=usage))
        table = Table(memory, settings.processes, number)
        uvloop.run(run_gateway(settings, log, *sockets, sink, table))
    return 0


async def run_gateway(
    settings: Settings,
    log: EventLog,
    data_socket: socket.socket,
    ops_socket: socket.socket,
    sink: ToParent | None,
    table: Table | None,
) -> None:
    """Build the gateway, in the running event loop, and serve until a signal. sink, table: of the usage, and of what
    keys have used of their limits, for one of several processes. Raises ConfigError."""
    gateway = Gateway(settings, log, sink, table)
    tune_garbage_collector()
    await serve(gateway, data_socket, ops_socket, log, child=sink is not None)


def tune_garbage_collector() -> None:
    """Freeze what is loaded; collect less often (at 20,000 new objects, not 700): requests leave hardly any cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def print_key(words: list[str]) -> int:
    """Print a new key on standard error, for its user, and its hashed line with a name (`words`) on standard output."""
    key = new_key()
    print(f"key, shown this once: {key}", file=sys.stderr)  # noqa: T201  # this command's purpose
    print(" ".join([f"sha256:{hash_key(key.encode())}", *words]))  # noqa: T201
    return 0


def fail(error: Exception, code: int) -> int:
    """Write an error as one line, without the log, which may not be open yet, and return `code` to exit with. It says
    which value is wrong, and somebody may have put a key where its file is asked for."""
    sys.stderr.write(f"gateway: {without_secrets(str(error))}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
