"""Following log files onto the agent's own output, whole lines only.

The files are the truth. What is shown of them may be slower than what is written: then nobody waits, nothing is kept in
memory, and from ``max_behind`` on the reader is told how much was skipped and is shown the newest.
"""

from __future__ import annotations

import io
import logging
import os
import re
import select
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

CHUNK_BYTES = 64 << 10
"""How much is read at once of each file in turn, so that one that grows without end does not hide the others."""

MAX_LINE_BYTES = 64 << 10
"""A longer line is printed in pieces, so that a file without line ends costs no memory."""

MAX_BEHIND_BYTES = 64 << 20
"""Of a file that is shown to somebody."""

KEPT_BYTES = 1 << 20
"""So much of what could be skipped is shown."""

POLL_INTERVAL_S = 0.1

logger = logging.getLogger(__name__)


def console(fd: int) -> io.RawIOBase | None:
    """This process's standard output (1) or error (2), unbuffered; None if it is closed."""
    try:
        return io.FileIO(fd, "wb", closefd=False)
    except OSError:
        return None


class LineSplitter:
    """Cuts a byte stream into lines, without their ends. LF, CR LF and CR end a line.

    So a progress bar, which rewrites its line, is seen as it moves.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes."""
        lines = (self._rest + data).splitlines(keepends=True)
        # A CR at the very end may be the first half of a CR LF.
        self._rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [line.rstrip(b"\r\n") for line in lines]

    def flush(self) -> list[bytes]:
        """What is left at the end of the stream: an unfinished line."""
        rest, self._rest = self._rest, b""
        return [rest.rstrip(b"\r")] if rest else []

    def discard(self) -> int:
        """Forget the unfinished line. How many bytes that were."""
        size, self._rest = len(self._rest), b""
        return size


class Output(Protocol):
    """Where lines go. One thread calls it."""

    def write_lines(self, prefix: bytes, lines: Sequence[bytes]) -> None: ...


class StreamOutput:
    """A stream, such as the console. One that breaks is given up; who writes to it is not told.

    It should have no buffer: a thread that waits for a reader must not hold a lock that the end of the process needs.
    A pipe gets no line in two writes, unless it is longer than PIPE_BUF: others may write to it as well.
    """

    def __init__(self, stream: io.RawIOBase | None) -> None:
        self._stream = stream
        self._is_pipe = stream is not None and _is_pipe(stream)

    def write_lines(self, prefix: bytes, lines: Sequence[bytes]) -> None:
        whole = [prefix + line + b"\n" for line in lines]
        for data in _batches(whole) if self._is_pipe else [b"".join(whole)]:
            self._write(memoryview(data))

    def _write(self, left: memoryview) -> None:
        while left and self._stream is not None:
            try:
                if (written := self._stream.write(left)) is None:
                    time.sleep(POLL_INTERVAL_S)  # Somebody made it non-blocking, and it is full.
                else:
                    left = left[written:]
            except OSError:
                self._stream = None  # The reader is gone. The files still have it all.


def _is_pipe(stream: io.RawIOBase) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except OSError:
        return False


def _batches(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Joined as far as a pipe takes it in one piece."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > select.PIPE_BUF:
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    yield b"".join(batch)


class FilteredFile:
    """Those lines that contain one of ``filters``, in a file of their own. It is there from the start.

    Raises OSError if it cannot be made; that it cannot be written to later is logged, once.
    """

    def __init__(self, path: str, filters: Iterable[str]) -> None:
        self._path = path
        self._finds = re.compile(b"|".join(re.escape(text.encode(errors="replace")) for text in filters)).search
        self._is_broken = False
        self._append(b"")

    def write_lines(self, prefix: bytes, lines: Sequence[bytes]) -> None:
        found = [prefix + line + b"\n" for line in lines if self._finds(line)]
        if not found or self._is_broken:
            return
        try:
            self._append(b"".join(found))
        except OSError as error:
            self._is_broken = True
            logger.warning("no more lines are copied to %s: %s", self._path, error)

    def _append(self, data: bytes) -> None:
        with open(self._path, "ab") as file:
            file.write(data)


class _Tail:
    """One file's follower. ``ending`` is set by another thread, once nobody writes any more.

    ``through``: it has nothing left to do. ``behind``: there is more to read than it has read.
    """

    def __init__(self, path: str, prefix: bytes, output: Output, max_behind: int | None) -> None:
        self.ending = False
        self.through = False
        self.behind = False
        self._path = path
        self._prefix = prefix
        self._output = output
        self._max_behind = max_behind
        self._file: io.FileIO | None = None
        self._position = 0
        self._end: int | None = None
        """Its size once it was ending: a process that nobody could stop does not hold up the end."""
        self._splitter = LineSplitter()

    def advance(self) -> None:
        """Print the next piece of what was added since the last time."""
        ending = self.ending
        try:
            if self._file is None:
                self._file = io.FileIO(self._path)
            self._copy(self._file, ending)
        except FileNotFoundError:
            self.through = ending  # Else no worker has opened it yet.
        except OSError as error:
            self._give_up(error)

    def _copy(self, file: io.FileIO, ending: bool) -> None:
        size = os.fstat(file.fileno()).st_size
        if size < self._position:
            self._position = file.seek(0)  # Somebody emptied it, as logrotate does.
        if self._max_behind is not None and size - self._position > self._max_behind:
            self._skip(file, size)
        data = file.read(CHUNK_BYTES)
        self._position += len(data)
        self._print(self._splitter.feed(data))
        if ending and self._end is None:
            self._end = size
        if self._end is not None and (not data or self._position >= self._end):
            self._print(self._splitter.flush())
            self._close()
        self.behind = bool(data) and not self.through

    def _skip(self, file: io.FileIO, size: int) -> None:
        """Go on from a line's start, near the end."""
        target = file.seek(size - KEPT_BYTES)
        target += file.read(CHUNK_BYTES).find(b"\n") + 1
        skipped = self._splitter.discard() + target - self._position
        self._position = file.seek(target)
        self._print([f"<{skipped:,} bytes are not shown, being too many at once: see {self._path}>".encode()])

    def _print(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._output.write_lines(self._prefix, lines)

    def _give_up(self, error: OSError) -> None:
        self._print([f"<cannot follow: {error}>".encode()])
        self._close()

    def _close(self) -> None:
        self.through, self.behind = True, False
        if self._file is not None:
            self._file.close()


class TailLogs:
    """One thread that follows any number of files. The thread runs once there is a file.

    ``max_behind``: if more bytes of a file are not shown yet, all but the last KEPT_BYTES are skipped. None: all is
    shown, however long that takes.
    """

    def __init__(self, max_behind: int | None = None) -> None:
        self._max_behind = max_behind
        self._tails: list[_Tail] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, path: str, prefix: str, output: Output) -> None:
        """Print each line of ``path``, behind ``prefix``, to ``output``. The file need not exist yet."""
        with self._lock:
            self._tails.append(_Tail(path, prefix.encode(errors="replace"), output, self._max_behind))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tail-logs", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Nobody writes to the files any more: print the rest of each and let go of it."""
        with self._lock:
            for tail in self._tails:
                tail.ending = True

    def close(self) -> None:
        """Finish, and wait until all is printed. It takes as long as whoever reads it takes."""
        self.finish()
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()
            has_tails, is_behind = self._pass()
            if closing and not has_tails:
                return
            if not is_behind:
                self._closing.wait(POLL_INTERVAL_S)

    def _pass(self) -> tuple[bool, bool]:
        """Advance every tail. Whether any is left, and whether one is behind."""
        with self._lock:
            tails = list(self._tails)
        for tail in tails:
            tail.advance()
        with self._lock:
            self._tails = [tail for tail in self._tails if not tail.through]
            return bool(self._tails), any(tail.behind for tail in self._tails)
