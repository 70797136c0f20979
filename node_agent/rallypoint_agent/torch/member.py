"""One torchrun agent's part in a job: the agent's core, driven from the calls that torchrun makes.

torchrun's agent starts, watches and ends the workers itself, and comes here only to ask: who is in the next round, and
is this round to end? So an effect of the core that wants the workers started or stopped waits until torchrun comes.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable

from rallypoint.model import Assignment, Endpoint, WorkerFailure, WorkerState
from rallypoint_agent.control_link import ControlLink
from rallypoint_agent.core.effects import (
    Effect,
    Finish,
    HoldPort,
    Leave,
    Reattach,
    Report,
    Say,
    SetFence,
    SetIdentity,
    StartWorkers,
    StopWorkers,
)
from rallypoint_agent.core.events import (
    Event,
    GroupMonitored,
    PortHeld,
    TimeAdvanced,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.rendezvous_port import HeldPort, hold_port
from rallypoint_agent.torch.guarding import WorkersGuard

LEAVE_TIMEOUT_MS = 3_000
"""So long a goodbye may take."""

FOR_EVER_MS = 10 * 365 * 86_400_000
"""torchrun's loop does not come here while it stops workers or waits at its exit barrier: there is no pulse."""

LONGEST_WAIT_MS = 1_000

logger = logging.getLogger(__name__)


class JobOverError(Exception):
    """There is no next round for this node."""

    def __init__(self, finish: Finish) -> None:
        super().__init__(finish.message)
        self.finish = finish


class Member:
    """Belongs to one thread, torchrun's main one. The guard ends the workers where torchrun does not."""

    def __init__(
        self, link: ControlLink, config: AgentConfig, guard: WorkersGuard, local_addr: str | None = None
    ) -> None:
        self.finish: Finish | None = None
        self._link = link
        self._guard = guard
        self._node = config.node
        self._core = AgentCore(config)
        self._local_addr = local_addr
        self._effects: deque[Effect] = deque()
        self._deadline_ms: int | None = None
        self._held_port: HeldPort | None = None
        self._assignment: Assignment | None = None
        """To be started by torchrun, which does not know of it yet."""
        self._wants_stop = False
        self._started = False

    # --- what torchrun asks

    def next_round(self) -> Assignment:
        """The round to start workers for; none of an earlier one is alive. Raises JobOverError if there is none."""
        self._open()
        self._workers_gone()
        while self._assignment is None:
            if self.finish is not None:
                raise JobOverError(self.finish)
            self._turn(LONGEST_WAIT_MS)
        assignment, self._assignment = self._assignment, None
        return assignment

    def wants_stop(self) -> bool:
        """Whether the workers are to be ended, so that the job can re-form or end."""
        self._turn(0)
        return self._wants_stop or self.finish is not None

    def succeeded(self) -> None:
        """All workers exited with 0; none of their processes is alive."""
        self._step(GroupMonitored(self._core.state.round, WorkerState.SUCCEEDED))
        self._workers_gone()

    def failed(self, failures: tuple[WorkerFailure, ...]) -> None:
        """Workers failed, and none is alive."""
        self._step(GroupMonitored(self._core.state.round, WorkerState.FAILED, failures))
        self._workers_gone()

    def wait_finished(self, timeout_s: float) -> Finish | None:
        """Wait until the job is decided; None if it is not in time."""
        until = time.monotonic() + timeout_s
        while self.finish is None and (left_s := until - time.monotonic()) > 0:
            self._turn(min(round(left_s * 1000) + 1, LONGEST_WAIT_MS))
        return self.finish

    def close(self, message: str) -> None:
        """Say Goodbye, unless that was said, and end the link. No worker is alive."""
        if self._started:
            if self.finish is None:
                self._leave(Leave("LEFT", message))
            self._link.close()
            self._guard.close(is_known=self._link.released)
        if self._held_port is not None:
            self._held_port.close()
        self._started = False

    @property
    def rank(self) -> int:
        """Of this node's first worker, as the coordinator counts; 0 before the first round."""
        assignment = self._core.state.assignment
        return assignment.first_rank if assignment else 0

    # --- a turn

    def _open(self) -> None:
        if not self._started:
            self._started = True
            self._link.alive_until(boot_ms() + FOR_EVER_MS)
            self._link.start()
            self._step(TimeAdvanced())

    def _turn(self, longest_ms: int) -> None:
        self._wait(longest_ms)
        for event in self._link.events():
            self._step(event)
        if self._deadline_ms is not None and boot_ms() >= self._deadline_ms:
            self._step(TimeAdvanced())

    def _wait(self, longest_ms: int) -> None:
        if self._deadline_ms is not None:
            longest_ms = min(longest_ms, max(0, self._deadline_ms - boot_ms()))
        poll = select.poll()
        poll.register(self._link.fileno(), select.POLLIN)
        poll.poll(longest_ms)

    def _workers_gone(self) -> None:
        """torchrun comes back only after it ended them; if nobody asked for that, one of them had failed."""
        state = self._core.state
        if not state.phase.may_have_workers:
            return
        if not self._wants_stop:
            self._step(GroupMonitored(state.round, WorkerState.FAILED, (self._unseen_failure(),)))
        self._wants_stop = False
        while (stuck := self._guard.sweep()) and self.finish is None:
            self._step(WorkersStuck(state.round, tuple(stuck)))
            self._turn(LONGEST_WAIT_MS)
        self._step(WorkersGone(state.round))

    def _unseen_failure(self) -> WorkerFailure:
        """torchrun does not say which worker failed, nor how, when it starts them again."""
        return WorkerFailure(
            node=self._node,
            local_rank=0,
            rank=self.rank,
            pid=0,
            exit_code=1,
            message=f"a worker of torchrun's agent on {self._node} failed; its log there has the details",
            fail_time_ms=time.time_ns() // 1_000_000,
        )

    def _step(self, event: Event) -> None:
        output = self._core.step(event, boot_ms())
        self._deadline_ms = output.next_deadline_ms
        self._effects.extend(output.effects)
        while self._effects:
            self._perform[type(effect := self._effects.popleft())](effect)

    # --- effects

    @property
    def _perform(self) -> dict[type[Effect], Callable[..., None]]:
        return {
            Report: lambda effect: self._link.report(effect.observed, can_wait=effect.can_wait),
            SetFence: self._guard.fence,
            SetIdentity: self._take_identity,
            StartWorkers: self._start,
            StopWorkers: self._stop,
            HoldPort: self._hold_port,
            Reattach: lambda effect: self._link.reattach(),
            Leave: self._leave,
            Say: lambda effect: logger.info("%s", " ".join(effect.message.split())),
            Finish: self._finish,
        }

    def _take_identity(self, effect: SetIdentity) -> None:
        self._link.set_identity(effect.cluster_id, effect.job_uid, effect.lease_id)
        self._guard.identify(effect)

    def _start(self, effect: StartWorkers) -> None:
        self._assignment = effect.assignment
        self._wants_stop = False
        self._step(WorkersStarted(effect.assignment.round, {0: 0}))

    def _stop(self, effect: StopWorkers) -> None:
        if self._assignment is not None:  # torchrun has not heard of the round: there is nothing to end.
            self._assignment = None
            self._step(WorkersGone(effect.round))
        else:
            self._wants_stop = True

    def _finish(self, effect: Finish) -> None:
        self.finish = effect

    def _leave(self, effect: Leave) -> None:
        self._link.leave(effect.reason, effect.message)
        deadline_ms = boot_ms() + LEAVE_TIMEOUT_MS
        while not self._link.left and (left_ms := deadline_ms - boot_ms()) > 0:
            self._wait(left_ms)
            self._link.events()

    def _hold_port(self, effect: HoldPort) -> None:
        endpoint = None
        try:
            held = hold_port()
        except OSError as error:
            logger.warning("no port for the rendezvous: %s", error)
        else:
            if self._held_port is not None:
                self._held_port.close()
            self._held_port = held
            endpoint = Endpoint(self._own_host(), held.port)
        self._step(PortHeld(effect.offer_id, endpoint))

    def _own_host(self) -> str:
        return self._local_addr or self._link.local_address() or socket.gethostname()
