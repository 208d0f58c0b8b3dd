"""Starts and ends vLLM (or nvidia-smi) in a process group of its own, passes its output on and keeps its last lines.
Nothing here blocks except starting a program. Used by the supervisor and `resources.gpus`, in the main thread."""

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

_READ_BYTES = 65536  # in one read, as much as a pipe holds
_READS_AT_ONCE = 16  # in one `pump`, so that a flood of output cannot delay signals
_MAX_LINE_BYTES = 65536  # held back until a line ends; a longer one is passed on in pieces
_KEPT_LINES = 1000  # the tracebacks of eight ranks and of the processes above them
_KEPT_LINE_CHARACTERS = 2000
_LINE_END = re.compile(rb"[\r\n]")
# the container lacks something for a moment; any other error will recur at every start
_TEMPORARY = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class StartError(Exception):
    """The program could not be started; the text says which and why, `is_temporary` whether trying again may help."""

    def __init__(self, program: str, error: OSError) -> None:
        """`error` is what starting `program` raised; `reason` is its text."""
        self.reason = error.strerror or str(error)
        self.is_temporary = error.errno in _TEMPORARY
        super().__init__(f"{program} cannot be started: {self.reason}")


class Stream:
    """Copies one of vLLM's output streams from a pipe to a sink, byte for byte. `Process` owns two. Bytes are held back
    only to the end of a line (or of a progress bar's redraw), so that the launcher's own log lines never land in the
    middle of one. `open` is False once the program has closed its end."""

    def __init__(self, source: int, sink: Sink) -> None:
        """Copy from `source`, the reading end of a pipe, which this stream closes in the end."""
        os.set_blocking(source, False)
        self._source = source
        self._sink = sink
        self._held = b""  # the beginning of a line that has not ended yet
        self.open = True

    def fileno(self) -> int:
        """Return the pipe's descriptor, on which `Process.readers` lets the owner wait."""
        return self._source

    def pump(self) -> list[str]:
        """Copy what can be read without blocking, a MiB at most. Return the lines completed by it."""
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
        """Copy the rest (a MiB at most), even an incomplete line, and close the pipe. Return the last lines. Called
        once the program has ended (a child that it left could keep the pipe open for ever), or could not be started."""
        lines = [*self.pump(), *self._pass(b"", final=True)] if self.open else []
        os.close(self._source)
        self.open = False
        return lines

    def _pass(self, chunk: bytes, *, final: bool) -> list[str]:
        """Write whole lines to the sink and hold the rest back (`final`: write all). Return those written."""
        text = self._held + chunk
        cut = len(text) if final or len(text) > _MAX_LINE_BYTES else _end_of_lines(text)
        whole, self._held = text[:cut], text[cut:]
        if whole:
            self._sink.write(whole)
        return [line.decode("utf-8", "replace") for line in _LINE_END.split(whole) if line]


class Process:
    """A started program. Its owner waits for it (`Init.wait`), and calls `note_end` once it has ended."""

    def __init__(
        self, popen: subprocess.Popen[bytes], streams: Sequence[Stream], spared: Collection[Descendant]
    ) -> None:
        """Take over a program that `start` has started; nothing else calls this."""
        self._popen = popen
        self._streams = streams
        self._spared = spared
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def pid(self) -> int:
        """The id of the main process, and of the process group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None until `note_end`; negative if a signal ended the main process."""
        return self._popen.returncode

    @property
    def tail(self) -> Sequence[str]:
        """The last 1000 lines of both streams, oldest first, each cut to 2000 characters; `classify` reads them."""
        return tuple(self._tail)

    def readers(self) -> Iterator[int]:
        """Return the descriptors of streams that are open, for the caller to wait on."""
        return (stream.fileno() for stream in self._streams if stream.open)

    def pump(self, readable: Iterable[int]) -> list[str]:
        """Copy the output that waits at the `readable` descriptors. Return the lines completed, cut as in `tail`."""
        wanted = set(readable)
        return self._remember(
            line
            for stream in self._streams
            if stream.open and stream.fileno() in wanted
            for line in stream.pump()
        )

    def signal(self, number: int) -> None:
        """Send a signal to the main process only (vLLM ends its children itself); nothing after `note_end`."""
        if self.exit_code is None:
            os.kill(self.pid, number)

    def kill_tree(self) -> None:
        """Send SIGKILL to the main process, its group and all descendants of the launcher except `spared`, after the
        grace period: a rank left behind would keep its GPU's memory. (An orphan becomes the launcher's child, so
        nothing else tells whose it was.) The owner then waits for the end and calls `note_end`."""
        self._kill_group()
        self._kill_descendants()

    def note_end(self, exit_code: int) -> None:
        """Set `exit_code`, which `Init.wait` returned in place of `Popen.wait`; kill all that the main process left
        behind and copy the last output. The owner calls it once; `gpus` also to kill an nvidia-smi and not wait for
        it."""
        self._kill_group()
        self._popen.returncode = exit_code
        self._remember(line for stream in self._streams for line in stream.close())
        self._kill_descendants()  # after closing the streams: reading /proc needs a descriptor

    def _kill_group(self) -> None:
        """Send SIGKILL to the process group that `start` made; nothing if none of it is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _kill_descendants(self) -> None:
        """Send SIGKILL to every descendant of the launcher but `spared`, in whatever group: only one program runs at a
        time, so all of them are its own. If /proc cannot be read now, the next `start` kills them."""
        with contextlib.suppress(OSError):
            process_tree.kill_descendants(os.getpid(), self._spared)

    def _remember(self, lines: Iterable[str]) -> list[str]:
        """Add lines of output, cut to their bound, to `tail`, and return them."""
        kept = [line[:_KEPT_LINE_CHARACTERS] for line in lines]
        self._tail.extend(kept)
        return kept


def start(
    command: Sequence[str], environ: Mapping[str, str], spared: Collection[Descendant], out: Sink, err: Sink
) -> Process:
    """Start `command` in a process group of its own, with its output on `out` and `err`. It gets this process's
    environment, overridden by `environ`. Descendants of this process other than `spared` (`Init.spared`) were left by
    an earlier program and are killed first. Raises `StartError`, also if /proc cannot be read for that."""
    try:
        process_tree.kill_descendants(os.getpid(), spared)
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
            unless_started.pop_all()  # started: the streams stay open
    except OSError as error:
        raise StartError(command[0], error) from None
    return Process(popen, (out_stream, err_stream), spared)


def _piped(
    sink: Sink, unless_started: contextlib.ExitStack, afterwards: contextlib.ExitStack
) -> tuple[Stream, int]:
    """Return a stream to `sink`, closed by `unless_started`, and its pipe's writing end, closed by `afterwards`."""
    reader, writer = os.pipe()
    afterwards.callback(os.close, writer)
    stream = Stream(reader, sink)
    unless_started.callback(stream.close)
    return stream, writer


def _end_of_lines(text: bytes) -> int:
    """Return how many bytes of `text` are whole lines (or redraws of a progress bar, which end with a CR)."""
    return max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
