"""Following log files onto the agent's own output, whole lines only."""

from __future__ import annotations

import io
import os
import threading
import time

CHUNK_BYTES = 64 << 10
"""How much is read at once."""

MAX_LINE_BYTES = 64 << 10
"""A longer line is printed in pieces, so that a file without line ends costs no memory."""

POLL_INTERVAL_S = 0.1

_CHUNKS_PER_PASS = 16
"""So that a worker that writes without end does not keep the others' lines from being seen."""


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


class _Output:
    """A stream that several tails write to. One that breaks is given up, its tails are not."""

    def __init__(self, stream: io.RawIOBase | None) -> None:
        self._stream = stream

    def write_lines(self, prefix: bytes, lines: list[bytes]) -> None:
        if not lines or self._stream is None:
            return
        left = memoryview(b"".join(prefix + line + b"\n" for line in lines))
        try:
            while left:
                if (written := self._stream.write(left)) is None:
                    time.sleep(POLL_INTERVAL_S)  # Somebody made it non-blocking, and it is full.
                else:
                    left = left[written:]
        except OSError:
            self._stream = None  # The reader is gone. The files still have it all.


class _Tail:
    """One file's follower. ``ending`` is set by another thread, once nobody writes any more.

    ``through``: it has nothing left to do. ``behind``: there is more to read than it has read.
    """

    def __init__(self, path: str, prefix: bytes, output: _Output) -> None:
        self.ending = False
        self.through = False
        self.behind = False
        self._path = path
        self._prefix = prefix
        self._output = output
        self._file: io.FileIO | None = None
        self._splitter = LineSplitter()

    def advance(self) -> None:
        """Print what was added since the last time."""
        ending = self.ending
        try:
            if self._file is None:
                self._file = io.FileIO(self._path)
            self.behind = self._copy(self._file, drain=ending)
        except FileNotFoundError:
            self.through = ending  # Else no worker has opened it yet.
        except OSError as error:
            self._give_up(error)
        else:
            if ending:
                self._end()

    def _copy(self, file: io.FileIO, drain: bool) -> bool:
        # The size is taken once: a process that nobody could stop does not hold up the end.
        size = os.fstat(file.fileno()).st_size if drain else 0
        chunks = 0
        while chunks < _CHUNKS_PER_PASS or file.tell() < size:
            data = file.read(CHUNK_BYTES)
            if not data:
                return False
            self._output.write_lines(self._prefix, self._splitter.feed(data))
            chunks += 1
        return True

    def _end(self) -> None:
        self._output.write_lines(self._prefix, self._splitter.flush())
        self._close()

    def _give_up(self, error: OSError) -> None:
        self._output.write_lines(self._prefix, [f"<cannot follow: {error}>".encode()])
        self._close()

    def _close(self) -> None:
        self.through = True
        if self._file is not None:
            self._file.close()


class TailLogs:
    """One thread that follows any number of files. The thread runs once there is a file.

    What is shown goes to two streams, None to nowhere. They have no buffer: a thread that waits for
    a reader must not hold a lock that the end of the process needs.
    """

    def __init__(self, stdout: io.RawIOBase | None, stderr: io.RawIOBase | None) -> None:
        self._outputs = {"stdout": _Output(stdout), "stderr": _Output(stderr)}
        self._tails: list[_Tail] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, path: str, prefix: str, output: str) -> None:
        """Print each line of ``path``, behind ``prefix``, to ``output``: "stdout" or "stderr".

        The file need not exist yet.
        """
        tail = _Tail(path, prefix.encode(errors="replace"), self._outputs[output])
        with self._lock:
            self._tails.append(tail)
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
            behind = self._pass()
            if closing:
                return
            if not behind:
                self._closing.wait(POLL_INTERVAL_S)

    def _pass(self) -> bool:
        """Advance every tail. Whether one is behind."""
        with self._lock:
            tails = list(self._tails)
        for tail in tails:
            tail.advance()
        with self._lock:
            self._tails = [tail for tail in self._tails if not tail.through]
        return any(tail.behind for tail in tails)
