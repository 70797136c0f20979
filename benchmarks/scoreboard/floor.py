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


def measure(bench: Bench, size: int, samples: int) -> list[float]:
    """So many times, in seconds."""
    workers = Workers(bench.new_folder("floor"))
    with _echo() as link:
        _start(workers, size)
        return [_once(workers, size, link) for _ in range(samples)]


def _once(workers: Workers, size: int, link: socket.socket) -> float:
    survivors = [note.pid for note in workers.notes()[-size:]]
    os.kill(victim := survivors.pop(), signal.SIGKILL)
    os.waitpid(victim, 0)
    began = time.time()
    for pid in survivors:
        os.kill(pid, signal.SIGTERM)
    for pid in survivors:
        os.waitpid(pid, 0)
    for _ in range(ROUND_TRIPS):
        link.sendall(b"round")
        link.recv(64)
    return _start(workers, size) - began


def _start(workers: Workers, size: int) -> float:
    """Says when the last of them began."""
    before = len(workers.notes())
    for _ in range(size):
        os.posix_spawn(workers.command[0], workers.command, os.environ)
    return max(note.at for note in workers.wait_for(before + size)[before:])


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
