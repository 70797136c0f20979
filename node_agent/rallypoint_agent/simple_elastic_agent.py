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
import traceback
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, assert_never

from rallypoint.model import (
    Endpoint,
    JobSpec,
    JobState,
    Observed,
    WatchdogStatus,
    WorkerFailure,
    WorkerState,
)
from rallypoint_agent.api import DEFAULT_ROLE, ElasticAgent, RunResult, WorkerGroup, WorkerSpec
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
    PortHeld,
    SignalReceived,
    TimeAdvanced,
    TimerExpired,
    WatchdogChanged,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.core.stuck import CANNOT_START
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.metrics import prof
from rallypoint_agent.rendezvous_port import HeldPort, hold_port, hold_port_in
from rallypoint_agent.signals import SignalWatch, signals_to_handle
from rallypoint_agent.telemetry import Telemetry
from rallypoint_agent.torch_store import StoreServer

PULSE_MS = 10_000
"""The link goes on renewing the lease for so long after the main loop was last seen turning."""

LEAVE_TIMEOUT_MS = 3_000
"""So long a goodbye may take."""

logger = logging.getLogger(__name__)


class ControlLink(Protocol):
    """What the agent needs of ``spec.rdzv_handler``; :class:`~rallypoint_agent.link.Link` is one."""

    @property
    def left(self) -> bool: ...
    @property
    def released(self) -> bool: ...
    def start(self) -> None: ...
    def fileno(self) -> int: ...
    def events(self) -> Iterable[Event]: ...
    def report(self, observed: Observed) -> None: ...
    def watchdog(self, status: WatchdogStatus) -> None: ...
    def set_identity(self, cluster_id: str, job_uid: str, lease_id: int) -> None: ...
    def reattach(self) -> None: ...
    def alive_until(self, boot_ms: int) -> None: ...
    def leave(self, reason: str, message: str) -> None: ...
    def local_address(self) -> str | None: ...
    def get_run_id(self) -> str: ...
    def get_backend(self) -> str: ...
    def close(self) -> None: ...


class WorkerStartError(Exception):
    """A worker could not be started; its text says which program and why."""

    def __init__(self, message: str, local_rank: int = 0) -> None:
        super().__init__(message)
        self.local_rank = local_rank


class StartInterruptedError(Exception):
    """A start was given up because the workers have to end anyway. Some may be running."""


class SimpleElasticAgent(Telemetry, ElasticAgent):
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
        self._deadline_ms: int | None = None
        self._port_range = port_range
        self._held_port: HeldPort | None = None
        self._store: StoreServer | None = None
        self._return_values: dict[int, Any] = {}
        """Of the last round, by global rank."""
        self._job_uid = ""
        self._address = ""
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

    # --- what a subclass provides: torch's methods

    @abstractmethod
    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        """Start the workers; their ids by local rank. What it raises is the group's failure."""

    @abstractmethod
    def _stop_workers(self, worker_group: WorkerGroup, is_restart: bool = False) -> None:
        """End the workers by SIGTERM; return when nothing that they started is alive, or see ``_left_behind``."""

    @abstractmethod
    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """How the group is now.

        SUCCEEDED: all exited with 0. FAILED: some did not; ``failures`` has them. STOPPED: they
        are gone, ended by something other than this agent. UNHEALTHY: a stop left some behind.
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

    @property
    def signals(self) -> tuple[signal.Signals, ...]:
        """Those that end it."""
        return self._signals.numbers

    @property
    def failures(self) -> tuple[WorkerFailure, ...]:
        """What failed on this node in the last round, the earliest first."""
        return self._core.state.failures

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
            self._total_execution_time = int(time.monotonic() - began)
        result = self._result(finish)
        if finish.kind in (FinishKind.DECIDED, FinishKind.BARRIER_TIMEOUT):
            self._note_result(result)
        return result

    def _run(self) -> Finish:
        # Once no worker is alive, a signal may end us as it ends any process: what is called
        # afterwards may have to wait for others.
        with contextlib.ExitStack() as afterwards, self._signals, contextlib.ExitStack() as ending:
            afterwards.callback(self._close)
            afterwards.callback(self._link.close)
            afterwards.callback(self._drop_port)
            afterwards.callback(self._close_store)
            self._link.start()
            ending.callback(self._end)
            self._open()
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

    def _result(self, finish: Finish) -> RunResult:
        failures = {failure.rank: failure for failure in self.failures}
        outcome = finish.outcome
        if outcome and outcome.culprit:
            failures[outcome.culprit.rank] = outcome.culprit
        if finish.kind is FinishKind.BARRIER_TIMEOUT or (outcome and outcome.state is JobState.SUCCEEDED):
            ranks = (worker.global_rank for worker in self._worker_group.workers)
            return RunResult(
                WorkerState.SUCCEEDED, return_values={rank: self._return_values.get(rank) for rank in ranks}
            )
        return RunResult(WorkerState.FAILED, failures=failures)

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
        result = self._monitor_workers(group)
        group.state = result.state
        self._put_tick(result.state)
        if result.state is WorkerState.STOPPED:
            self._round_timer.stopping()
            self._round_timer.waiting()
            self._step(WorkersGone(self._round, self._late_failures()))
        elif result.state not in (WorkerState.HEALTHY, WorkerState.UNHEALTHY):
            self._return_values = dict(result.return_values)
            failures = tuple(result.failures.values())
            self._step(GroupMonitored(self._round, result.state, failures))

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
                self._link.report(effect.observed)
            case SetFence():
                self._set_fence(effect.term_at_ms, effect.kill_at_ms)
            case SetIdentity():
                self._take_identity(effect)
            case StartWorkers():
                self._start(effect)
            case CloseStore():
                self._close_store()
            case StopWorkers():
                self._stop(effect)
            case KillWorker():
                self._kill_worker(effect)
            case HoldPort():
                self._hold_port(effect)
            case Reattach():
                self._link.reattach()
            case Leave():
                self._leave(effect)
            case Say():
                logger.info("%s", " ".join(effect.message.split()))
            case Finish():
                self.finish = effect
            case _:
                assert_never(effect)

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
                self._serve_store()
            ids = self._start_workers(group)
            group.set_ids(ids)
        except StartInterruptedError:
            group.state = WorkerState.HEALTHY
        except Exception as error:
            group.state = WorkerState.FAILED
            self._note_start(False)
            failure = self._start_failure(error)
            self._step(GroupMonitored(self._round, WorkerState.FAILED, (failure,)))
        else:
            group.state = WorkerState.HEALTHY
            self._note_start(True)
            self._step(WorkersStarted(self._round, _pids(ids)))

    def _start_failure(self, error: Exception) -> WorkerFailure:
        expected = isinstance(error, WorkerStartError)
        local_rank = error.local_rank if isinstance(error, WorkerStartError) else 0
        name = self._worker_group.spec.get_entrypoint_name()
        return WorkerFailure(
            node=self._core.config.node,
            local_rank=local_rank,
            rank=self._worker_group.workers[local_rank].global_rank,
            pid=0,
            exit_code=CANNOT_START,
            message=str(error) if expected else f"cannot start {name}: {error}",
            traceback="" if expected else "".join(traceback.format_exception(error)),
            fail_time_ms=time.time_ns() // 1_000_000,
            fail_clock_ms=boot_ms(),
        )

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

    # --- the rendezvous port, and the store there if we host it

    def _serve_store(self) -> None:
        """Raises WorkerStartError: without their store no worker can begin."""
        assert self._held_port is not None, "the round is at the port that was offered"
        try:
            self._store = StoreServer(self._held_port.listen())
        except OSError as error:
            why = error.strerror or str(error)
            raise WorkerStartError(f"cannot serve the store at port {self._held_port.port}: {why}") from error
        self._store.start()

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _hold_port(self, effect: HoldPort) -> None:
        try:
            held = PortHeld(effect.offer_id, self._hold_another())
        except OSError as error:
            asked_for = self._ports_asked_for()
            held = PortHeld(effect.offer_id, None, _port_problem(asked_for, error), is_named=bool(asked_for))
        self._step(held)

    def _hold_another(self) -> Endpoint:
        """Another port than before if there is one: a round may still have stragglers there."""
        wanted = self._worker_group.spec.master_port
        if wanted is not None:
            self._drop_port()
        held = hold_port_in(self._port_range, self._held_port) if self._port_range else hold_port(wanted)
        self._drop_port()
        self._held_port = held
        return Endpoint(self._own_host(), held.port)

    def _ports_asked_for(self) -> str:
        if self._port_range:
            return f"a port of {self._port_range[0]}-{self._port_range[-1]} (--port-range)"
        wanted = self._worker_group.spec.master_port
        return "" if wanted is None else f"port {wanted} (--master-port)"

    def _drop_port(self) -> None:
        if self._held_port is not None:
            self._held_port.close()
            self._held_port = None

    def _own_host(self) -> str:
        spec = self._worker_group.spec
        if named := spec.master_addr or spec.local_addr:
            return named
        if not self._address:
            self._address = self._link.local_address() or ""
        return self._address or socket.gethostname()


def _port_problem(asked_for: str, error: OSError) -> str:
    why = error.strerror or str(error)
    if not asked_for:
        return f"no port can be had for the rendezvous: {why}"
    return f"{asked_for} cannot be had for the rendezvous: {why}; free it, or name another one"


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
