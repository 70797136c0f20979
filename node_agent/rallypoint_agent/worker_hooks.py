"""What a subclass of SimpleElasticAgent provides: how workers are started, watched and ended.

torch's four methods have to be there; the others may be.
"""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from rallypoint.model import WatchdogStatus, WorkerFailure
from rallypoint_agent.api import ElasticAgent, RunResult, WorkerGroup
from rallypoint_agent.core.effects import KillWorker, SetIdentity
from rallypoint_agent.core.events import TimerExpired


class WorkerHooks(ElasticAgent):
    """Called by the agent, in the thread that called ``run``."""

    @abstractmethod
    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        """Start the workers; their ids by local rank. What it raises is the group's failure."""

    @abstractmethod
    def _stop_workers(self, worker_group: WorkerGroup, is_restart: bool = False) -> None:
        """End the workers by SIGTERM; return when nothing that they started is alive, or see ``_left_behind``."""

    @abstractmethod
    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """How the group is now.

        SUCCEEDED: all exited with 0. FAILED: some did not; ``failures`` has them, as WorkerFailure or as torch's
        ProcessFailure. STOPPED: they are gone, ended by something other than this agent. UNHEALTHY: a stop left some
        behind; without one it is a failure like FAILED, and so is UNKNOWN.
        """

    @abstractmethod
    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: float = 30) -> None:
        """End the workers by this signal, after ``timeout`` seconds by SIGKILL, as above."""

    # --- what a subclass may provide

    def _open(self) -> None:
        """Called once, before the first worker."""

    def _close(self) -> None:
        """Called once at the end, no worker being alive, even if ``_open`` raised."""

    def _wakeup_fds(self) -> list[int]:
        """Descriptors that are readable when there is something for ``_drain``."""
        return []

    def _drain(self) -> None:
        """Called after every wait, whatever the group's state: what ``_wakeup_fds`` tell of is taken off them.

        What is left unread keeps the agent from waiting.
        """

    def _hasten_stop(self, death_sig: int, timeout: float) -> None:
        """A stop is under way and this one came on top: override it if this is sooner."""

    def _left_behind(self) -> tuple[int, ...]:
        """The processes that the last stop could not end, not even by SIGKILL, and that are still there.

        The group is monitored on: once they are gone, ``_monitor_workers`` says STOPPED.
        """
        return ()

    def _watchdog_status(self) -> WatchdogStatus:
        """How the file timer's watchdog is, if there is one."""
        return WatchdogStatus()

    def _expired_timers(self) -> Iterable[TimerExpired]:
        """Those that ``_drain`` found since the last call; each is answered by a ``_kill_worker``, or not at all."""
        return ()

    def _kill_worker(self, effect: KillWorker) -> None:
        """Send it the signal, and have its end be a failure for that reason. Only after ``_expired_timers``."""

    def _late_failures(self) -> tuple[WorkerFailure, ...]:
        """Failures that no ``_monitor_workers`` has told, after a stop."""
        return ()

    def _set_fence(self, term_at_ms: int, kill_at_ms: int) -> None:
        """Unless called again: end the workers at these instants, whatever happens to the agent."""

    def _set_obituary(self, identity: SetIdentity) -> None:
        """What is to be reported if the agent itself is killed."""

    def _leave_obituary(self, message: str) -> None:
        """The agent ends, no worker being alive, and the coordinator could not be told: somebody else should."""
