"""One running vLLM in a process group of its own: its output is passed on unchanged, its last lines are kept."""

import contextlib
import errno
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from launcher.process import process_tree
from launcher.process.outlet import Sink
from launcher.process.process_tree import Descendant

_READ_BYTES = 65536
_READS_AT_ONCE = 16  # so that a flood of output cannot keep signals waiting
_MAX_LINE_BYTES = 65536
_KEPT_LINES = 1000  # the tracebacks of eight ranks and of the processes above them
_KEPT_LINE_CHARACTERS = 2000
_LINE_END = re.compile(rb"[\r\n]")
# what a container can lack for a moment; any other error is the program's
_TEMPORARY = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class StartError(Exception):
    """The program could not be started; the text says which and why, `is_temporary` whether trying again may help."""

    def __init__(self, program: str, error: OSError) -> None:
        """`error` is what the kernel said."""
        self.reason = error.strerror or str(error)
        self.is_temporary = error.errno in _TEMPORARY
        super().__init__(f"{program} cannot be started: {self.reason}")


class Stream:
    """One of vLLM's output streams and its sink.

    Bytes pass unchanged. They are held back only to the end of a line (or of a progress bar's redraw), so that the
    launcher's own lines never land in the middle of one.
    """

    def __init__(self, source: int, sink: Sink) -> None:
        """`source` is the reading end of a pipe; this stream owns it from now on."""
        os.set_blocking(source, False)
        self._source = source
        self._sink = sink
        self._held = b""
        self.open = True

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._source

    def pump(self) -> list[str]:
        """Pass on what can be read without blocking; returns the lines that were completed."""
        lines: list[str] = []
        for _ in range(_READS_AT_ONCE):
            try:
                chunk = os.read(self.fileno(), _READ_BYTES)
            except BlockingIOError:
                break
            lines += self._pass(chunk, final=not chunk)
            if not chunk:
                self.open = False
                break
        return lines

    def close(self) -> list[str]:
        """Pass on the rest, even an incomplete line, and close; returns the last lines."""
        lines = [*self.pump(), *self._pass(b"", final=True)] if self.open else []
        os.close(self._source)
        self.open = False
        return lines

    def _pass(self, chunk: bytes, *, final: bool) -> list[str]:
        text = self._held + chunk
        cut = len(text) if final or len(text) > _MAX_LINE_BYTES else _end_of_lines(text)
        whole, self._held = text[:cut], text[cut:]
        if whole:
            self._sink.write(whole)
        return [line.decode("utf-8", "replace") for line in _LINE_END.split(whole) if line]


class Process:
    """A started vLLM. Its owner reaps it and then calls `ended`."""

    def __init__(
        self, popen: subprocess.Popen[bytes], streams: Sequence[Stream], others: Collection[Descendant]
    ) -> None:
        """See `start`."""
        self._popen = popen
        self._streams = streams
        self._others = others
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def pid(self) -> int:
        """The process id of vLLM's main process, and of its group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._popen.returncode

    @property
    def tail(self) -> Sequence[str]:
        """The last lines of both streams, oldest first, each cut to a bounded length."""
        return tuple(self._tail)

    def readers(self) -> Iterator[int]:
        """The descriptors that may still bring output."""
        return (stream.fileno() for stream in self._streams if stream.open)

    def pump(self, readable: Iterable[int]) -> list[str]:
        """Pass on what the readable descriptors hold; returns the lines completed."""
        wanted = set(readable)
        return self._keep(
            line
            for stream in self._streams
            if stream.open and stream.fileno() in wanted
            for line in stream.pump()
        )

    def signal(self, number: int) -> None:
        """Send a signal to vLLM's main process, which passes it on to its children; no effect once it has ended."""
        if self.exit_code is None:
            os.kill(self.pid, number)

    def kill_group(self) -> None:
        """End every process of the group at once; a rank left behind would hold its GPU's memory.

        Those that have left the group go too: all descendants of the launcher but the `others` of `start`. An orphan
        becomes the launcher's child, and nothing else tells whose it was.
        """
        self._signal_group()
        self._kill_strays()

    def ended(self, exit_code: int) -> None:
        """Note the end of the main process, end what it left behind, pass on the last output."""
        self._signal_group()
        self._popen.returncode = exit_code
        self._keep(line for stream in self._streams for line in stream.close())
        self._kill_strays()  # now that the streams' descriptors are free, of which it needs one

    def _signal_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _kill_strays(self) -> None:
        """Where they cannot be looked for, `start` does so again and starts nothing before it has."""
        with contextlib.suppress(OSError):
            process_tree.kill_descendants(os.getpid(), self._others)

    def _keep(self, lines: Iterable[str]) -> list[str]:
        kept = [line[:_KEPT_LINE_CHARACTERS] for line in lines]
        self._tail.extend(kept)
        return kept


def start(
    command: Sequence[str], environ: Mapping[str, str], others: Collection[Descendant], out: Sink, err: Sink
) -> Process:
    """Start `command` in its own process group with its output on `out` and `err`; raises `StartError`.

    It gets this process's environment and, above that, `environ`. `others` are the descendants of this process that no
    program has started (`Init.others`). Any other one was left by an earlier program, and is ended first.
    """
    try:
        process_tree.kill_descendants(os.getpid(), others)
        with contextlib.ExitStack() as unless_started, contextlib.ExitStack() as afterwards:
            (out_stream, out_writer), (err_stream, err_writer) = (
                _piped(sink, unless_started, afterwards) for sink in (out, err)
            )
            popen = subprocess.Popen(  # noqa: S603 - the operator's own command, no shell
                command,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=out_writer,
                stderr=err_writer,
                process_group=0,
            )
            unless_started.pop_all()
    except OSError as error:
        raise StartError(command[0], error) from None
    return Process(popen, (out_stream, err_stream), others)


def _piped(
    sink: Sink, unless_started: contextlib.ExitStack, afterwards: contextlib.ExitStack
) -> tuple[Stream, int]:
    """A stream to `sink` and the descriptor that feeds it, which is ours no longer once the program has it."""
    reader, writer = os.pipe()
    afterwards.callback(os.close, writer)
    stream = Stream(reader, sink)
    unless_started.callback(stream.close)
    return stream, writer


def _end_of_lines(text: bytes) -> int:
    return max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
