"""The shell of the agent's core: it waits, tells the core what happened, does what the core says.

The core (:mod:`rallypoint_agent.core.machine`) decides; here is the one place where its effects
become calls. A subclass starts, watches and ends the workers, through torch's four methods.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, assert_never

from rallypoint.model import JobSpec, WorkerFailure, WorkerState
from rallypoint_agent.api import DEFAULT_ROLE, RunResult, WorkerGroup, WorkerSpec
from rallypoint_agent.control_link import ControlLink
from rallypoint_agent.core.effects import (
    CloseStore,
    Effect,
    Finish,
    FinishKind,
    HoldPort,
    KillWorker,
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
    SignalReceived,
    TimeAdvanced,
    WatchdogChanged,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.failed_start import StartInterruptedError, start_failure
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.metrics import prof
from rallypoint_agent.monitored import understood
from rallypoint_agent.round_endpoint import RoundEndpoint
from rallypoint_agent.run_result import run_result
from rallypoint_agent.signals import SignalWatch, signals_to_handle
from rallypoint_agent.telemetry import Telemetry
from rallypoint_agent.worker_hooks import WorkerHooks

if TYPE_CHECKING:
    from rallypoint_agent.torch_store import StoreServer

PULSE_MS = 10_000
"""The link goes on renewing the lease for so long after the main loop was last seen turning."""

LEAVE_TIMEOUT_MS = 3_000
"""So long a goodbye may take."""

logger = logging.getLogger(__name__)


class SimpleElasticAgent(Telemetry, WorkerHooks):
    """Runs a worker group as the coordinator directs.

    ``config`` has to say what the link's Hello says. Without one the job is one node's, with torch's
    two timeouts, in seconds, as its policies. ``port_range``: the workers may meet at these ports
    only, each round at another one as far as there are others (``spec.master_port``: always at that
    one). ``signals`` end it (default: those of TORCHELASTIC_SIGNALS_TO_HANDLE). ``finish`` says, once
    ``run`` is over, why.

    One thread: ``run`` and every method below belong to the thread that called it.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        exit_barrier_timeout: float = 300,
        shutdown_timeout: float = 30,
        *,
        config: AgentConfig | None = None,
        port_range: range | None = None,
        signals: Sequence[signal.Signals] | None = None,
    ) -> None:
        super().__init__(WorkerGroup(spec))
        self.finish = None
        self._shutdown_timeout = shutdown_timeout
        self._link: ControlLink = spec.rdzv_handler
        self._core = AgentCore(config or _one_node(spec, exit_barrier_timeout, shutdown_timeout))
        self._signals = SignalWatch(signals_to_handle() if signals is None else signals)
        self._effects: deque[Effect] = deque()
        self._lines: deque[Say] = deque()
        """For people, who can wait until all that others wait for is done."""
        self._deadline_ms: int | None = None
        self._endpoint = RoundEndpoint(spec, port_range, self._link.local_address)
        self._return_values: dict[int, Any] = {}
        """Of the last round, by global rank."""
        self._job_uid = ""
        self._longest_wait = spec.monitor_interval
        """In seconds. Longer if ``_wakeup_fds`` tell of everything that a look would find."""
        self._turned_at = time.time()
        """When the main loop was last seen turning, for whoever asks whether it is well."""
        self._stop_grace = float(shutdown_timeout)
        """The grace period, in seconds, of the ``_stop_workers`` under way."""
        self._is_stopping = False
        self._has_pumped = False
        """What was taken off the descriptors while a method blocked wakes nobody again: look before the next wait."""
        self._is_over = False

    @property
    def signals(self) -> tuple[signal.Signals, ...]:
        """Those that end it."""
        return self._signals.numbers

    @property
    def failures(self) -> tuple[WorkerFailure, ...]:
        """What failed on this node in the last round, the earliest first."""
        return self._core.state.failures

    @property
    def _store(self) -> StoreServer | None:
        """Of this round, while it is served here. torch's name."""
        return self._endpoint.store

    # --- torch's interface

    def get_worker_group(self, role: str = DEFAULT_ROLE) -> WorkerGroup:
        return self._worker_group

    @prof
    def run(self, role: str = DEFAULT_ROLE) -> RunResult:
        """Take part in the job until it is decided, or this agent has to leave it.

        Whatever happens, no worker is alive afterwards; but for an agent that is told to end while
        not even SIGKILL ends some process, which ``finish`` then names.
        """
        began = time.monotonic()
        try:
            finish = self._run()
        finally:
            self._say_all()
            self._total_execution_time = int(time.monotonic() - began)
        result = run_result(finish, self.failures, self._return_values, self._worker_group)
        if finish.kind in (FinishKind.DECIDED, FinishKind.BARRIER_TIMEOUT):
            self._note_result(result)
        return result

    def _run(self) -> Finish:
        # Once no worker is alive, a signal may end us as it ends any process: what is called
        # afterwards may have to wait for others.
        with contextlib.ExitStack() as afterwards, self._signals, contextlib.ExitStack() as ending:
            afterwards.callback(self._close)
            afterwards.callback(self._link.close)
            afterwards.callback(self._endpoint.close)
            # Before the link: what is started here starts while the link's thread imports gRPC.
            self._open()
            self._link.start()
            ending.callback(self._end)
            self._round_timer.waiting()
            self._step(TimeAdvanced())
            self._perform()
            while self.finish is None:
                self._turn()
        return self.finish

    def _end(self) -> None:
        """As torch: a shutdown in any case. Only if an error brought us here is anything to end."""
        self._is_over, self._deadline_ms = True, None
        self._shutdown(timeout=self._shutdown_timeout)
        if self.finish is None and not self._left_behind():
            self._leave(Leave("AGENT_FAILED", "the agent ended by an error of its own"))
        if not self._link.released and self._core.state.lease.is_live(boot_ms()):
            why = self.finish.message if self.finish is not None else "an error of its own"
            self._leave_obituary(f"the agent ended ({why}) without a coordinator to tell")

    # --- one turn: wait, look, think, act

    def _turn(self) -> None:
        self._wait(0 if self._has_pumped else self._longest_wait)
        self._has_pumped = False
        # Before what the coordinator says: an end that came first is reported as what it was.
        self._monitor()
        self._take_in()
        self._perform()

    def _wait(self, longest_s: float) -> None:
        """Until something happens or is due, at most ``longest_s`` seconds."""
        self._say_all()
        self._turned_at = time.time()
        now_ms = boot_ms()
        self._link.alive_until(now_ms + PULSE_MS)
        if self._deadline_ms is not None:
            longest_s = min(longest_s, max(0, self._deadline_ms - now_ms) / 1000)
        poll = select.poll()
        for fd in (self._signals.fileno(), self._link.fileno(), *self._wakeup_fds()):
            poll.register(fd, select.POLLIN)
        poll.poll(longest_s * 1000)
        self._drain()

    def _monitor(self) -> None:
        group = self._worker_group
        if not WorkerState.is_running(group.state):
            return
        said = self._monitor_workers(group)
        result = understood(said, group, self._core.config.node, left_behind=bool(self._left_behind()))
        group.state = result.state
        self._put_tick(result.state)
        if result.state is WorkerState.STOPPED:
            self._round_timer.stopping()
            self._round_timer.waiting()
            self._step(WorkersGone(self._round, self._late_failures()))
        elif result.state not in (WorkerState.HEALTHY, WorkerState.UNHEALTHY):
            self._return_values = dict(result.return_values)
            self._step(GroupMonitored(self._round, result.state, tuple(result.failures.values())))

    def _take_in(self) -> None:
        """Tell the core all that happened but for the workers."""
        self._note_watchdog()
        for number in self._signals.take():
            self._step(SignalReceived(number))
        for event in self._link.events():
            self._step(event)
        if self._deadline_ms is not None and boot_ms() >= self._deadline_ms:
            self._step(TimeAdvanced())

    def _note_watchdog(self) -> None:
        status = self._watchdog_status()
        if status.enabled:
            self._link.watchdog(status)
        if status != self._core.state.watchdog:
            self._step(WatchdogChanged(status))
        for expired in self._expired_timers():
            self._step(expired)

    def _step(self, event: Event) -> None:
        output = self._core.step(event, boot_ms())
        self._effects.extend(output.effects)
        self._deadline_ms = output.next_deadline_ms

    def _perform(self) -> None:
        while self._effects and self.finish is None:
            self._perform_one(self._effects.popleft())

    # --- while a subclass's method blocks

    def _pump(self, timeout: float) -> None:
        """For a method that has to wait: wait up to ``timeout`` seconds, with the agent alive.

        The lease is renewed and the fence fed meanwhile, reports go out, and a signal or a
        directive that wants the workers gone sooner calls ``_hasten_stop``.
        """
        self._wait(timeout)
        self._has_pumped = True
        if self._is_over:
            if self._signals.take():
                self._hasten_stop(signal.SIGKILL, 0)
            return
        self._take_in()
        while self._effects and self._can_perform_now(self._effects[0]):
            self._perform_one(self._effects.popleft())

    def _can_perform_now(self, effect: Effect) -> bool:
        if isinstance(effect, StopWorkers):
            return self._is_stopping
        return not isinstance(effect, StartWorkers | Leave | Finish)

    def _stop_is_due(self) -> bool:
        """For a ``_start_workers`` that waits: it should raise StartInterruptedError."""
        return any(isinstance(effect, StopWorkers) for effect in self._effects)

    # --- effects

    def _perform_one(self, effect: Effect) -> None:
        match effect:
            case Report():
                self._link.report(effect.observed, can_wait=effect.can_wait)
            case SetFence():
                self._set_fence(effect.term_at_ms, effect.kill_at_ms)
            case SetIdentity():
                self._take_identity(effect)
            case StartWorkers():
                self._start(effect)
            case CloseStore():
                self._endpoint.close_store()
            case StopWorkers():
                self._stop(effect)
            case KillWorker():
                self._kill_worker(effect)
            case HoldPort():
                self._step(self._endpoint.hold(effect.offer_id))
            case Reattach():
                self._link.reattach()
            case Leave():
                self._leave(effect)
            case Say():
                self._lines.append(effect)
            case Finish():
                self.finish = effect
            case _:
                assert_never(effect)

    def _say(self, message: str) -> None:
        """For people: behind what others wait for, and in order."""
        self._lines.append(Say(message))

    def _say_all(self) -> None:
        while self._lines:
            logger.info("%s", " ".join(self._lines.popleft().message.split()))

    def _take_identity(self, effect: SetIdentity) -> None:
        self._job_uid = effect.job_uid
        self._link.set_identity(effect.cluster_id, effect.job_uid, effect.lease_id)
        self._set_obituary(effect)

    def _start(self, effect: StartWorkers) -> None:
        group = self._worker_group
        began = time.perf_counter()
        group.assign(effect.assignment)
        self._note_assignment(group, began)
        try:
            if effect.hosts_store:
                self._endpoint.serve_store()
            ids = self._start_workers(group)
            group.set_ids(ids)
        except StartInterruptedError:
            group.state = WorkerState.HEALTHY
        except Exception as error:
            group.state = WorkerState.FAILED
            self._note_start(False)
            failure = start_failure(error, self._core.config.node, group)
            self._step(GroupMonitored(self._round, WorkerState.FAILED, (failure,)))
        else:
            group.state = WorkerState.HEALTHY
            self._note_start(True)
            self._step(WorkersStarted(self._round, _pids(ids)))

    def _stop(self, effect: StopWorkers) -> None:
        number = signal.SIGTERM if effect.signal is None else effect.signal
        grace = effect.grace_ms / 1000
        if self._is_stopping:
            self._hasten_stop(number, grace)
            return
        self._link.alive_until(boot_ms() + effect.grace_ms + PULSE_MS)
        self._is_stopping, self._stop_grace = True, grace
        self._round_timer.stopping()
        try:
            if effect.signal is None:
                self._stop_workers(self._worker_group)
            else:
                self._shutdown(signal.Signals(number), grace)
        finally:
            self._is_stopping = False
        if pids := self._left_behind():
            self._worker_group.state = WorkerState.UNHEALTHY
            self._step(WorkersStuck(effect.round, pids))
            return
        if WorkerState.is_running(self._worker_group.state):
            self._worker_group.state = WorkerState.STOPPED
        self._round_timer.waiting()
        self._step(WorkersGone(effect.round, self._late_failures()))

    def _leave(self, effect: Leave) -> None:
        self._link.leave(effect.reason, effect.message)
        deadline_ms = boot_ms() + LEAVE_TIMEOUT_MS
        while not self._link.left and (left_ms := deadline_ms - boot_ms()) > 0:
            self._wait(left_ms / 1000)
            # Nothing can change the end any more; unread they would keep us from waiting.
            self._link.events()
            if self._signals.take():
                logger.info("told to end again: not waiting for the coordinator to take note")
                return

    @property
    def _round(self) -> int:
        assignment = self._worker_group.assignment
        assert assignment is not None
        return assignment.round


def _one_node(spec: WorkerSpec, exit_barrier_timeout: float, shutdown_timeout: float) -> AgentConfig:
    return AgentConfig(
        node=socket.gethostname(),
        local_world_size=spec.local_world_size,
        job_spec=JobSpec(
            max_restarts=spec.max_restarts,
            exit_barrier_timeout_ms=round(exit_barrier_timeout * 1000),
            shutdown_timeout_ms=round(shutdown_timeout * 1000),
        ),
        connect_timeout_ms=60_000,
        start_ms=boot_ms(),
    )


def _pids(ids: dict[int, Any]) -> dict[int, int]:
    """For the report. A subclass's ids may be anything."""
    return {rank: id_ if isinstance(id_, int) else 0 for rank, id_ in ids.items()}
