"""What this machine needs at the least to end the workers of N agents and to start others, with no launcher at all.

The survivors' own stop (SIGTERM to all of them until the kernel has the last one's end), then two round trips over
loopback (plain TCP to a process that echoes: one to hear of the failure, one to be told the new round), then one spawn
for each agent, all at once, until the last of them has noted that it runs. Agents do these in parallel on hosts of
their own; on this machine they share its cores, and so they do here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from scoreboard.bench import Bench
from scoreboard.workers import Workers

ROUND_TRIPS = 2
ECHO = """\
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as link:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while message := link.recv(64):
        link.sendall(message)
"""


class Floor:
    """Workers without a launcher. Made by :func:`a_floor`."""

    def __init__(self, workers: Workers, size: int, link: socket.socket) -> None:
        self._workers, self._size, self._link = workers, size, link
        self._start()

    def once(self) -> float:
        """From one worker's end to the next round's last worker, in seconds."""
        survivors = [note.pid for note in self._workers.notes()[-self._size :]]
        os.kill(victim := survivors.pop(), signal.SIGKILL)
        os.waitpid(victim, 0)
        began = time.time()
        for pid in survivors:
            os.kill(pid, signal.SIGTERM)
        for pid in survivors:
            os.waitpid(pid, 0)
        for _ in range(ROUND_TRIPS):
            self._link.sendall(b"round")
            self._link.recv(64)
        return self._start() - began

    def close(self) -> None:
        for note in self._workers.notes()[-self._size :]:
            os.kill(note.pid, signal.SIGKILL)
            os.waitpid(note.pid, 0)

    def _start(self) -> float:
        """Says when the last of them began."""
        before, command = len(self._workers.notes()), self._workers.command
        for _ in range(self._size):
            os.posix_spawn(command[0], command, os.environ)
        return max(note.at for note in self._workers.wait_for(before + self._size)[before:])


@contextlib.contextmanager
def a_floor(bench: Bench, size: int, script: str) -> Iterator[Floor]:
    with _echo() as link:
        floor = Floor(Workers(bench.new_folder("floor"), script), size, link)
        yield floor
        floor.close()


@contextlib.contextmanager
def _echo() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        argv = [sys.executable, "-S", "-I", "-c", ECHO, str(server.getsockname()[1])]
        with subprocess.Popen(argv) as process:
            try:
                link, _ = server.accept()
                with link:
                    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    yield link
            finally:
                process.kill()
