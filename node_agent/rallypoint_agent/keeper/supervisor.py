"""The keeper itself: parent of all workers, and the one that is left to clean up after its agent.

It is single-threaded and blocks in poll() only: a stopped agent, a process that cannot be killed, a
worker that hangs before its exec must not keep it from the next deadline.

Children are watched by SIGCHLD and a wait for any child rather than by pidfds: to their parent a
pid cannot be given anew before it is reaped, and the orphans that come here need that wait anyhow.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

from rallypoint_agent.keeper import linux, process_tree
from rallypoint_agent.keeper.channel import Channel
from rallypoint_agent.keeper.launch import launch
from rallypoint_agent.keeper.linux import boot_ns
from rallypoint_agent.keeper.waker import Waker
from rallypoint_agent.keeper.worker_round import Teardown, WorkerRound, exit_code

# See framing.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rallypoint_agent.keeper.framing import Message

_NO_ROUND = -1
_LAST_SWEEP_SECONDS = 5.0
_PIDS_TOLD = 64

_KEPT_SIGNALS = {
    *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV),
    *(signal.SIGSYS, signal.SIGTRAP, signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD),
}

_HANGUP = select.POLLHUP | select.POLLERR


class ProtocolError(Exception):
    """The agent said what its own side must not let through."""


class Supervisor:
    """Does what the agent says, and what time and the ends of processes make necessary.

    Invariant: without a round it has no children, as a round ends only once there are none.
    """

    def __init__(self, channel: Channel, waker: Waker, agent_pid: int) -> None:
        self._channel = channel
        self._waker = waker
        self._agent_pidfd = _open_parent(agent_pid)
        self._round: WorkerRound | None = None
        self._teardown: Teardown | None = None
        self._pace = process_tree.Pace()
        self._survivors: list[int] = []
        """What the last pass of SIGKILL found."""
        self._fence: tuple[int, int] | None = None
        """SIGTERM and SIGKILL are due at these times, unless the agent feeds later ones."""
        self._gone: Message = {"event": "gone", "round": _NO_ROUND, "fenced": False}
        """The last that was said of its kind: the answer to a stop that has nothing to do."""
        self._obituary: Message | None = None
        self._ending = False
        """The agent is gone or said close: kill everything, then end."""
        self._parted = False
        """The agent is gone: nothing of it is waited for any more."""

    def serve(self) -> None:
        """Until the agent is gone, or says close, and all processes are."""
        if self._agent_pidfd is not None:
            self._waker.watch(self._agent_pidfd)
        while not (self._advance() and self._ending):
            self._await()
        self._channel.flush()

    def run_obituary(self) -> None:
        """Run the obituary command, if there is one to run. Bounded in time."""
        if self._obituary is None:
            return
        try:
            pid, pipe = launch(self._obituary)
        except OSError as error:
            _complain(f"no obituary: {error.strerror}")
            return
        ended = self._await_end(pid, boot_ns() + self._obituary["timeout_ns"])
        if ended and (error_text := os.read(pipe, 4096)):
            _complain(f"no obituary: {error_text.decode('utf-8', 'replace')}")
        process_tree.sweep((), _LAST_SWEEP_SECONDS)

    # What is due.

    def _advance(self) -> bool:
        """Do what is due now. Returns whether no child is left."""
        childless = self._reap()
        now = boot_ns()
        self._strike(now)
        if not self._is_killing(now):
            return childless
        if childless:
            self._finish_round()
        elif now >= self._pace.next_ns:
            self._pace.looked(now)
            self._kill()
        return childless

    def _kill(self) -> None:
        """One pass; more follow until no child is left."""
        # It fails if the workers used up the system's open files, say. The next pass may do.
        with contextlib.suppress(OSError):
            self._survivors = process_tree.kill_descendants(os.getpid())

    def _is_killing(self, now: int) -> bool:
        """Whether all processes must end by SIGKILL now."""
        if self._ending:
            return True
        if self._round is None or (self._teardown is None and not self._round.failures):
            return False
        # A round that has not fully started has nothing that would be worth a grace period.
        if self._teardown is None or not self._round.announced:
            return True
        return not self._round.live or now >= self._teardown.kill_at_ns

    def _deadline(self) -> int | None:
        """When there is something to do even if nothing happens."""
        if self._is_killing(boot_ns()):
            return self._pace.next_ns
        due = [self._teardown.kill_at_ns] if self._teardown else []
        if self._fence and self._is_fence_armed():
            due.append(self._fence[0])
        return min(due, default=None)

    def _is_fence_armed(self) -> bool:
        """Whether there is something for the fence to strike that it has not yet struck."""
        return self._round is not None and not (self._teardown and self._teardown.fenced)

    def _strike(self, now: int) -> None:
        """Begin the teardown that the fence demands, if it is due. It is never taken back."""
        if self._fence is None or now < self._fence[0] or not self._is_fence_armed():
            return
        self._tear_down(signal.SIGTERM, self._fence[1]).fenced = True

    def _tear_down(self, number: int, kill_at_ns: int) -> Teardown:
        """Begin a teardown, or make the one under way as soon as this."""
        assert self._round is not None
        if self._teardown is None:
            self._teardown = Teardown(kill_at_ns)
        self._teardown.hasten(kill_at_ns)
        if self._round.announced and number not in self._teardown.signals_sent:
            self._teardown.signals_sent.add(number)
            self._round.signal_groups(number)
        return self._teardown

    def _announce(self) -> None:
        """Say that the round is spawned, once it is; then what ended meanwhile."""
        round_ = self._round
        if round_ is None or round_.announced or not round_.started or self._teardown:
            return
        round_.announced = True
        pids = {str(rank): pid for rank, pid in round_.pids.items()}
        self._channel.send({"event": "spawned", "round": round_.number, "pids": pids})
        for message in round_.exits:
            self._channel.send(message)
        # The environments of a round may be some MB; they are not needed any more.
        linux.trim_memory()

    def _finish_round(self) -> None:
        """No process is left: say so."""
        round_, teardown = self._round, self._teardown
        if round_ is None:
            return
        self._read_starts(list(round_.starting))
        self._round, self._teardown, self._pace = None, None, process_tree.Pace()
        self._survivors = []
        self._gone = {
            "event": "gone",
            "round": round_.number,
            "fenced": teardown is not None and teardown.fenced,
        }
        if round_.failures:
            self._say_spawn_failed(round_)
        # Every stop is answered, even that of a round that fails to start.
        if teardown or not round_.failures:
            self._channel.send(self._gone)

    def _say_spawn_failed(self, round_: WorkerRound) -> None:
        rank = min(round_.failures)
        self._channel.send(
            {
                "event": "spawn_failed",
                "round": round_.number,
                "local_rank": rank,
                "error": round_.failures[rank],
            }
        )

    def _reap(self) -> bool:
        """Take note of all children that ended. Returns whether none is left."""
        while True:
            try:
                status = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return True
            if status is None:
                return False
            self._note_end(status)

    def _note_end(self, status: os.waitid_result) -> None:
        now = boot_ns()
        self._pace.progressed(now)
        round_ = self._round
        if round_ is None or status.si_pid not in round_.live:
            return  # An orphan.
        message = {
            "event": "exited",
            "round": round_.number,
            "local_rank": round_.live.pop(status.si_pid),
            "pid": status.si_pid,
            "exit_code": exit_code(status),
            "at_boot_ns": now,
            "wall_time": time.time(),
        }
        if round_.announced:
            self._channel.send(message)
        else:
            round_.exits.append(message)

    # What happens.

    def _await(self) -> None:
        self._channel.flush()
        if not self._parted:
            self._waker.watch(self._channel.fd, self._channel.interest())
        ready = self._waker.wait(self._deadline())
        # First what the agent may have seen before it spoke: a stop finds a round that it knows
        # to run announced, and leaves it its grace period.
        self._read_starts(ready)
        self._announce()
        if self._agent_pidfd in ready or ready.get(self._channel.fd, 0) & _HANGUP:
            self._part_from_agent()
        elif self._channel.fd in ready:
            self._converse(ready[self._channel.fd])

    def _read_starts(self, pipes: Iterable[int]) -> None:
        """Learn from these pipes, as far as they are some, whether the workers behind them run."""
        if self._round is None:
            return
        for pipe in self._round.starting.keys() & pipes:
            self._waker.forget(pipe)
            self._round.read_start(pipe)

    def _converse(self, events: int) -> None:
        if events & select.POLLIN:
            for message in self._channel.receive():
                self._obey(message)
        if self._channel.ended:
            self._part_from_agent()

    def _part_from_agent(self) -> None:
        """The agent is gone. Only what it meant for after its end still counts."""
        if self._parted:
            return
        self._parted = self._ending = True
        for message in self._channel.receive_rest():
            if message["do"] in ("obituary", "close"):
                self._obey(message)
        self._waker.forget(self._channel.fd)
        if self._agent_pidfd is not None:
            self._waker.forget(self._agent_pidfd)

    def _obey(self, message: Message) -> None:
        match message["do"]:
            case "spawn":
                self._spawn(message["round"], message["workers"])
            case "stop":
                self._stop(message["signal"], message["grace_ns"])
            case "kill":
                self._kill_worker(message["round"], message["local_rank"], message["signal"])
            case "fence":
                self._fence = (message["term_at_ns"], message["kill_at_ns"])
            case "ask":
                self._answer()
            case "obituary":
                self._obituary = message
            case "close":
                self._obituary = None
                self._ending = True
            case other:
                raise ProtocolError(f"there is no command {other!r}")

    def _spawn(self, number: int, workers: list[Message]) -> None:
        if self._round is not None:
            raise ProtocolError(f"round {number} comes while round {self._round.number} is alive")
        if self._fence and boot_ns() >= self._fence[0]:
            # As if the fence had struck at once. It stands until the agent moves it.
            self._gone = {"event": "gone", "round": number, "fenced": True}
            self._channel.send(self._gone)
            return
        self._round = WorkerRound(number)
        self._round.start(workers)
        for pipe in self._round.starting:
            self._waker.watch(pipe)

    def _stop(self, number: int, grace_ns: int) -> None:
        if self._round is None:
            self._channel.send(self._gone)
            return
        self._tear_down(number, boot_ns() + (0 if number == signal.SIGKILL else grace_ns))

    def _kill_worker(self, number: int, local_rank: int, signal_number: int) -> None:
        if self._round is not None and self._round.number == number:
            self._round.signal_worker(local_rank, signal_number)

    def _answer(self) -> None:
        number = self._round.number if self._round else _NO_ROUND
        killing = self._is_killing(boot_ns())
        pids = self._survivors[:_PIDS_TOLD] if killing else []
        self._channel.send({"event": "answered", "round": number, "killing": killing, "pids": pids})

    def _await_end(self, pid: int, deadline_ns: int) -> bool:
        """Whether the child ``pid`` ended before the deadline. Reaps other children, too."""
        while boot_ns() < deadline_ns:
            while (status := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)) is not None:
                if status.si_pid == pid:
                    return True
            self._waker.wait(deadline_ns)
        return False


def main(*, channel_fd: int, agent_pid: int, held_fds: tuple[int, ...] = ()) -> None:
    """Keep until the agent is gone or says close. An error of ours leaves no process either."""
    _fill_standard_streams()
    for fd in held_fds:
        os.set_inheritable(fd, False)
    _block_signals()
    linux.become_subreaper()
    supervisor = Supervisor(Channel(channel_fd), Waker(), agent_pid)
    try:
        supervisor.serve()
    except BaseException:
        process_tree.sweep((), _LAST_SWEEP_SECONDS)
        # Before the traceback: it may block on a full pipe, and the agent should know by then.
        os.close(channel_fd)
        raise
    supervisor.run_obituary()
    _empty(held_fds)


def _empty(fds: Iterable[int]) -> None:
    """What is noted there for whoever comes next is settled: nothing is alive, and the obituary was run."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)


def _fill_standard_streams() -> None:
    """Those the agent was started without: else a pipe of ours would become a worker's output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _block_signals() -> None:
    """All but what tells of an error of our own: nothing may end the keeper before its workers.

    Batch systems send signals to every process of a job, and not only those that mean an end. Blocked rather than
    ignored, and with the default for each: a worker inherits dispositions, and would have to reset them one by one.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - _KEPT_SIGNALS)


def _open_parent(pid: int) -> int | None:
    """A pidfd of our parent, or None if ``pid`` is not our parent or the system forbids it.

    The agent's end is seen by it even while a fork of the agent holds the socket open.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if os.getppid() == pid:
        return pidfd
    os.close(pidfd)
    return None


def _complain(text: str) -> None:
    """Tell people, unless nobody listens: a full pipe must not hold the keeper up."""
    with contextlib.suppress(OSError):
        if select.select([], [sys.stderr], [], 0)[1]:
            print(f"rallypoint keeper: {text}", file=sys.stderr, flush=True)
