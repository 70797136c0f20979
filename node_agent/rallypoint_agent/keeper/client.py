"""The agent's side of its keeper. For one thread, the agent's main thread."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rallypoint.values import dataclass
from rallypoint_agent.keeper import framing, linux, process_tree
from rallypoint_agent.keeper.events import Gone, KeeperDied, KeeperEvent, SpawnFailed, parse

if TYPE_CHECKING:
    from rallypoint_agent.keeper.framing import Message

_PROGRAM = Path(__file__).with_name("child.py")
_READ_BYTES = 1 << 16
_SEND_TIMEOUT_SECONDS = 5.0


class KeeperError(Exception):
    """Something is wrong between the agent and its keeper."""


class KeeperMisuseError(KeeperError):
    """A call that makes no sense now or at all. Nothing was done."""


class KeeperTimeoutError(KeeperError):
    """The processes did not end in time; see the method that raised it. ``pids``: those known to be left."""

    def __init__(self, message: str, pids: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.pids = tuple(pids)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCommand:
    """What one worker runs.

    ``env`` is its whole environment. ``stdout`` and ``stderr`` are files to append to, None is the
    agent's own stream. Relative paths start at the agent's working directory when it started the
    keeper, and so does the worker unless ``cwd`` is given. ``cpus``: where it may run; None: where
    the agent may.
    """

    local_rank: int
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdout: str | None = None
    stderr: str | None = None
    cwd: str | None = None
    cpus: tuple[int, ...] | None = None

    def as_message(self) -> Message:
        """Not by dataclasses.asdict: it copies each variable of the environment, at the start of every round."""
        return {
            "local_rank": self.local_rank,
            "argv": self.argv,
            "env": dict(self.env),
            "stdout": self.stdout,
            "stderr": self.stderr,
            "cwd": self.cwd,
            "cpus": self.cpus,
        }


class Keeper:
    """A child process that is the parent of all workers and outlives the agent to end them.

    Commands return at once and are carried out in order; ``events`` and ``wait`` tell the rest.
    To a keeper that died they do nothing, as KeeperDied says it all; only ``spawn`` refuses.
    """

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        """Use ``start``."""
        self.pid = process.pid
        self._process = process
        self._channel = channel
        self._decoder = framing.Decoder()
        self._queue: deque[KeeperEvent] = deque()
        self._live_round: int | None = None
        self._fence: Message | None = None
        """The newest."""
        self._died = False
        self._closed = False
        # Rings for events that were read while sending: the socket is not readable for them.
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._readable = select.epoll()
        self._readable.register(channel, select.EPOLLIN)
        self._readable.register(self._bell, select.EPOLLIN)

    @classmethod
    def start(cls, *, python: str = sys.executable, hold_fds: Sequence[int] = ()) -> Keeper:
        """Start a keeper, run by this interpreter, and make the calling process a subreaper.

        The keeper holds ``hold_fds`` open until it ends, so that a lock on one of them outlives the agent as long as
        workers may be alive. The workers do not inherit them. At a keeper's own end, nothing being alive, it truncates
        those that are files.
        Raises OSError if it cannot be started, KeeperError without a /proc of our pid namespace.
        """
        if not process_tree.sees_us():
            raise KeeperError("/proc does not show this process: mount it for this pid namespace")
        linux.become_subreaper()
        ours, theirs = socket.socketpair()
        with theirs:
            process = _start_process(python, theirs, hold_fds)
        ours.setblocking(False)
        return cls(process, ours)

    def fileno(self) -> int:
        """A descriptor that is readable when events wait."""
        return self._readable.fileno()

    def spawn(self, round_number: int, workers: Sequence[WorkerCommand]) -> None:
        """Start the workers of a round: all or none.

        Raises KeeperMisuseError while the round before is not gone, for workers that make no
        sense, and if all of it is too large (framing.MAX_FRAME_BYTES).
        """
        self._check_spawn(round_number, workers)
        spawn = {"do": "spawn", "round": round_number, "workers": [worker.as_message() for worker in workers]}
        self._send(*[self._fence] if self._fence else [], spawn)
        self._live_round = round_number

    def stop(self, *, death_signal: int, grace: float) -> None:
        """End the workers and everything they started; answered by Gone.

        ``death_signal`` goes to the workers' process groups. SIGKILL goes to everything once all
        workers ended, or after ``grace`` seconds. A stop overrides an earlier one if it is sooner.
        """
        if not (math.isfinite(grace) and grace >= 0):
            raise KeeperMisuseError(f"a grace period of {grace} s")
        self._send({"do": "stop", "signal": int(death_signal), "grace_ns": int(grace * 1e9)})

    def kill_worker(self, round_number: int, local_rank: int, number: int) -> None:
        """Send this signal to one worker, and to nothing that it started. If it has ended nothing happens."""
        self._send({"do": "kill", "round": round_number, "local_rank": local_rank, "signal": int(number)})

    def fence(self, *, term_at_ns: int, kill_at_ns: int) -> None:
        """Unless fed again: SIGTERM to the workers, later SIGKILL to all, whatever the agent does.

        Both times are CLOCK_BOOTTIME. The newest call counts. A fence that struck is not taken
        back for its round, and until it is moved no other round is started. While there is no
        round it has nothing to strike, and goes out with the next one.
        """
        self._fence = {"do": "fence", "term_at_ns": term_at_ns, "kill_at_ns": kill_at_ns}
        if self._live_round is not None:
            self._send(self._fence)

    def ask(self) -> None:
        """Have it answer, with Answered, as soon as it gets to it."""
        self._send({"do": "ask"})

    def kill(self) -> None:
        """For a keeper that is of no use any more; KeeperDied follows."""
        self._process.kill()

    def obituary(self, argv: Sequence[str], env: Mapping[str, str], *, timeout: float) -> None:
        """What to run after the agent's end, once no process is alive; the newest call counts.

        It has the whole environment given, and is killed after ``timeout`` seconds.
        """
        if not argv:
            raise KeeperMisuseError("an obituary without a program")
        timeout_ns = int(timeout * 1e9)
        self._send({"do": "obituary", "argv": list(argv), "env": dict(env), "timeout_ns": timeout_ns})

    def events(self) -> list[KeeperEvent]:
        """What happened since the last call, without waiting."""
        if self._closed:
            return []
        self._receive()
        drained = list(self._queue)
        self._queue.clear()
        self._ring()
        return drained

    def wait(self, timeout: float) -> list[KeeperEvent]:
        """Wait up to ``timeout`` seconds for at least one event; none if that passes."""
        deadline = time.monotonic() + timeout
        while not (drained := self.events()) and not self._closed:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._readable.poll(left)
        return drained

    def close(self, timeout: float = 5.0) -> None:
        """End the keeper: it kills everything and runs no obituary. Repeating it does nothing.

        Raises KeeperTimeoutError if that takes longer than ``timeout`` seconds. Then the keeper
        was killed, and ``sweep_children`` is due.
        """
        if self._closed:
            return
        self._send({"do": "close"})
        self._closed = True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._end_process()
            raise KeeperTimeoutError(f"not all processes ended within {timeout} s") from None
        finally:
            self._release()

    def part(self) -> None:
        """Have it end as if this process had: it kills everything and runs the obituary. It is not waited for.

        Processes that it cannot end may keep it, and what it was given to hold, for long.
        """
        if not self._closed:
            self._closed = True
            self._release()

    def _check_spawn(self, round_number: int, workers: Sequence[WorkerCommand]) -> None:
        if self._died:
            raise KeeperMisuseError("the keeper died")
        if self._live_round is not None:
            raise KeeperMisuseError(f"round {self._live_round} is not gone")
        if round_number < 0:
            raise KeeperMisuseError(f"round {round_number}")
        if not workers or not all(worker.argv for worker in workers):
            raise KeeperMisuseError("no workers, or one without a program")
        if len({worker.local_rank for worker in workers}) < len(workers):
            raise KeeperMisuseError("two workers of the same local rank")

    def _send(self, *messages: Message) -> None:
        """Give commands to the keeper, at once; one that takes none for 5 s is killed, as no use."""
        if self._closed:
            raise KeeperMisuseError("the keeper is closed")
        left = memoryview(b"".join(map(_encode, messages)))
        deadline = time.monotonic() + _SEND_TIMEOUT_SECONDS
        while left and not self._died:
            try:
                left = left[self._channel.send(left) :]
            except BlockingIOError:
                self._await_writable(deadline)
            except OSError:
                self._receive()  # It died: this takes note of it.
        self._ring()

    def _await_writable(self, deadline: float) -> None:
        """Reads meanwhile: a keeper with much to report listens only once that is taken off it."""
        timeout = deadline - time.monotonic()
        if timeout <= 0:
            self._process.kill()
        poll = select.poll()
        poll.register(self._channel, select.POLLIN | select.POLLOUT)
        poll.poll(max(0.0, timeout) * 1000)
        self._receive()

    def _receive(self) -> None:
        """Move what the keeper said to the queue."""
        while not self._died:
            try:
                data = self._channel.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._note_death()
            for message in self._decoder.feed(data):
                self._enqueue(parse(message))

    def _enqueue(self, event: KeeperEvent) -> None:
        if isinstance(event, SpawnFailed | Gone) and event.round == self._live_round:
            self._live_round = None
        self._queue.append(event)

    def _note_death(self) -> None:
        self._died = True
        self._readable.unregister(self._channel)
        self._queue.append(KeeperDied(self._end_process()))

    def _end_process(self) -> int:
        """The exit code; a keeper that only closed its socket is killed for it."""
        try:
            return self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _ring(self) -> None:
        """Make the bell readable if and only if events wait in the queue."""
        if self._queue:
            os.eventfd_write(self._bell, 1)
            return
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def _release(self) -> None:
        self._readable.close()
        self._channel.close()
        os.close(self._bell)


def sweep_children(keep: Collection[int], *, timeout: float | None = None) -> None:
    """Kill and reap all descendants of this process but the pids in ``keep`` and their subtrees.

    The agent's duty after KeeperDied. A descendant of a kept process that was orphaned is no longer
    in its subtree. Raises KeeperTimeoutError if some are left after ``timeout`` seconds.
    """
    if left := process_tree.sweep(keep, timeout):
        raise KeeperTimeoutError(f"still there after {timeout} s: {left}", left)


def _start_process(python: str, channel: socket.socket, hold_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """Run the keeper's program in a session of its own: signals of the terminal pass it by."""
    # Above the standard streams, even if the agent was started without them.
    fd = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, 3)
    # -I drops PYTHONUTF8; file names must be coded there as they are here.
    flags = ["-S", "-I", f"-Xutf8={sys.flags.utf8_mode}"]
    # It inherits the mask, so no signal can end it before it blocks them itself.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return subprocess.Popen(
            [python, *flags, str(_PROGRAM), str(fd), str(os.getpid()), *map(str, hold_fds)],
            pass_fds=[fd, *hold_fds],
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(fd)


def _encode(message: Message) -> bytes:
    try:
        return framing.encode(message)
    except framing.FrameError as error:
        raise KeeperMisuseError(str(error)) from None
