"""The agent whose workers are processes of this machine, kept by the keeper."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rallypoint.model import Assignment, StoreHost, WatchdogStatus, WorkerFailure, WorkerState
from rallypoint_agent.agent_health import AgentHealth
from rallypoint_agent.api import RunResult, WorkerGroup, WorkerSpec
from rallypoint_agent.core.effects import KillWorker, SetIdentity
from rallypoint_agent.core.events import TimerExpired
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.entrypoint import ReturnValueError, entrypoint_of
from rallypoint_agent.failed_start import StartInterruptedError, WorkerStartError
from rallypoint_agent.full_disk import full_disk
from rallypoint_agent.grpc_setup import scrubbed_environ
from rallypoint_agent.health_check_server import HealthCheckServer
from rallypoint_agent.keeper import (
    OVERDUE_NS,
    Answered,
    Attention,
    Gone,
    Keeper,
    KeeperDied,
    KeeperEvent,
    Spawned,
    SpawnFailed,
    WorkerExited,
)
from rallypoint_agent.keeper.linux import boot_ns
from rallypoint_agent.keeper_post import KeeperPost
from rallypoint_agent.local_round import LocalRound
from rallypoint_agent.logs import LogsSpecs
from rallypoint_agent.metrics import prof
from rallypoint_agent.obituary import Obituary
from rallypoint_agent.simple_elastic_agent import SimpleElasticAgent
from rallypoint_agent.uninterruptible import UninterruptibleWatch, timeout_s
from rallypoint_agent.worker_commands import worker_commands
from rallypoint_agent.worker_env import GroupEnv, sets_omp_num_threads, worker_env
from rallypoint_agent.worker_output import WorkerOutput

if TYPE_CHECKING:
    from rallypoint_agent.file_timer import FileTimerServer
    from rallypoint_agent.file_timer_table import Timer
    from rallypoint_agent.numa import Cpus

ENABLE_WATCHDOG_VARIABLE = "TORCHELASTIC_ENABLE_FILE_TIMER"

_PUMP_S = 1.0
"""How long a blocking method waits at once: far less than the link's pulse."""

_LONGEST_WAIT_S = 5.0
"""However long the monitor interval: a main loop that only sleeps must not look like one that hangs, to the link
or to whoever asks for its health."""

_SWEEP_S = 0.5

logger = logging.getLogger(__name__)


class LocalElasticAgent(SimpleElasticAgent):
    """Runs ``spec.entrypoint``, a program or a function, once per local rank. Timeouts are in seconds.

    A function is called in a fresh interpreter of its own, which ``start_method`` "spawn" and "forkserver" have in
    common. "fork" is refused: a process with threads in it cannot be forked safely. For a program it has no meaning.

    A worker that stays in state D for ``uninterruptible_state_timeout`` has failed: default
    TORCHELASTIC_UNINTERRUPTIBLE_STATE_TIMEOUT, or 0, which is never.

    The workers inherit ``environ`` (default: the environment of this process). ``run_id`` is the
    job's name. ``obituary``: what to report should this process be killed; who it is about is
    filled in. ``hold_fds`` stay open until the keeper has ended as well. Should the keeper die,
    everything that descends from this process is killed but the children in ``keep_children``. ``keeper``: one that was
    started before, with these ``hold_fds``; whoever started it closes it if the agent is not run.
    ``incarnation`` marks what the workers start; ``note_obituary`` is called with each new version of the obituary,
    for whoever has to deliver it should the keeper be killed as well.
    Raises ValueError for what makes no sense or cannot be had, NumaBindingError if ``spec.numa_options`` cannot be met.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        logs_specs: LogsSpecs,
        start_method: str = "spawn",
        exit_barrier_timeout: float = 300,
        log_line_prefix_template: str | None = None,
        shutdown_timeout: float = 30,
        health_check_server: HealthCheckServer | None = None,
        uninterruptible_state_timeout: float | None = None,
        *,
        config: AgentConfig | None = None,
        port_range: range | None = None,
        signals: Sequence[signal.Signals] | None = None,
        run_id: str = "none",
        environ: Mapping[str, str] | None = None,
        obituary: Obituary | None = None,
        incarnation: str = "",
        note_obituary: Callable[[Obituary], None] = lambda obituary: None,
        hold_fds: Sequence[int] = (),
        keep_children: Collection[int] = (),
        keeper: Keeper | None = None,
    ) -> None:
        super().__init__(
            spec, exit_barrier_timeout, shutdown_timeout, config=config, port_range=port_range, signals=signals
        )
        _refuse_what_is_missing(spec, start_method)
        self._entrypoint = entrypoint_of(spec)
        # The keeper wakes us. So the interval bounds nothing but what an idle agent costs.
        self._longest_wait = min(max(spec.monitor_interval, _PUMP_S), _LONGEST_WAIT_S)
        self._logs_specs = logs_specs
        self._run_id = run_id
        self._environ = dict(scrubbed_environ() if environ is None else environ)
        self._cpus = _bindings(spec, self._environ)
        self._uninterruptible = UninterruptibleWatch(timeout_s(uninterruptible_state_timeout, self._environ))
        self._post = KeeperPost(
            self._environ, obituary, note_obituary, hold_fds=hold_fds, keep_children=keep_children, keeper=keeper
        )
        self._health_check_server = health_check_server
        self._health: AgentHealth | None = None
        self._watchdog: FileTimerServer | None = None
        self._expired: list[Timer] = []
        self._incarnation = incarnation
        self._output = WorkerOutput(log_line_prefix_template)
        self._local_round: LocalRound | None = None
        self._attention: Attention | None = None
        """Of the keeper, while a stop is under way."""
        self._unswept = False
        """The keeper died, and what it kept does not end."""

    @property
    def log_dir(self) -> str:
        """Where the output of the last round's workers is; "" if it went where ours goes."""
        return self._output.log_dir

    def error_file(self, failure: WorkerFailure) -> str:
        """Where a worker of the last round left why it failed; "" if it left nothing, or not here."""
        round_ = self._local_round
        if round_ is None or failure.node != self._core.config.node:
            return ""
        path = round_.error_files.get(failure.local_rank, "")
        return path if os.path.isfile(path) else ""

    # --- the agent's start and end

    def _open(self) -> None:
        self._post.fill()
        self._setup_local_watchdog()
        self._setup_healthcheck()
        if sets_omp_num_threads(self._environ, self._worker_group.spec.local_world_size):
            logger.info("OMP_NUM_THREADS=1 for each worker, since several share this node")

    def _close(self) -> None:
        with contextlib.ExitStack() as closing:
            # One that was made for torch has nothing to close.
            closing.callback(getattr(self._logs_specs, "close", lambda: None))
            closing.callback(self._entrypoint.clear)
            closing.callback(self._output.close)
            if self._watchdog is not None:
                closing.callback(self._watchdog.close)
            if self._health is not None:
                closing.callback(self._health.stop)
            closing.callback(lambda: self._post.close(leaving_some=bool(self._left_behind())))

    def _wakeup_fds(self) -> list[int]:
        return self._post.fds() + (self._watchdog.fds() if self._watchdog else [])

    # --- torch's four

    @prof
    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        assignment = worker_group.assignment
        assert assignment is not None
        envs = self._worker_envs(worker_group.spec, assignment)
        dest = self._logs_specs.reify(envs)
        commands = worker_commands(self._entrypoint, assignment.round, envs, dest, self._cpus)
        error_files = {rank: dest.error_files.get(rank, "") for rank in envs}
        round_ = LocalRound(self._core.config.node, assignment, error_files, full_disk=partial(full_disk, dest))
        round_.fence_ns = self._post.fence_ns
        self._output.follow(dest, worker_group)
        if dest.log_dir:
            self._say(f"the output of the workers is in {dest.log_dir}")
        if self._watchdog is not None:
            self._watchdog.await_workers()
        self._post.need().spawn(assignment.round, commands)
        self._local_round = round_
        while not round_.pids:
            self._check_start(round_)
            self._pump(_PUMP_S)
        return dict(round_.pids)

    def _check_start(self, round_: LocalRound) -> None:
        if round_.start_failure:
            local_rank, error = round_.start_failure
            raise WorkerStartError(error, local_rank)
        if round_.gone or round_.stuck or self._stop_is_due():
            raise StartInterruptedError

    @prof
    def _stop_workers(self, worker_group: WorkerGroup, is_restart: bool = False) -> None:
        self._shutdown(timeout=self._stop_grace)

    @prof
    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        round_ = self._local_round
        assert round_ is not None
        if round_.stuck and round_.is_stopping:
            return RunResult(WorkerState.STOPPED if round_.gone else WorkerState.UNHEALTHY)
        self._give_up_on_sleepers(round_)
        if failures := round_.take_failures():
            return RunResult(WorkerState.FAILED, failures={failure.rank: failure for failure in failures})
        if round_.gone:
            return RunResult(WorkerState.STOPPED)
        if round_.has_succeeded(worker_group.spec.local_world_size):
            return self._succeeded(round_, worker_group)
        return RunResult(WorkerState.HEALTHY)

    def _give_up_on_sleepers(self, round_: LocalRound) -> None:
        """A worker that the kernel does not let go has failed, though it cannot end."""
        if round_.is_stopping:
            return
        now_ns = boot_ns()
        for local_rank, seconds in self._uninterruptible.look(round_.running, now_ns):
            reason = f"in uninterruptible sleep (state D) for {seconds:.1f} s"
            logger.error("round %d: local rank %d has failed: %s", round_.assignment.round, local_rank, reason)
            round_.give_up(local_rank, now_ns, reason)
            self._post.need().kill_worker(round_.assignment.round, local_rank, signal.SIGKILL)

    def _succeeded(self, round_: LocalRound, worker_group: WorkerGroup) -> RunResult:
        """It has not if what a worker returned is lost."""
        values, number = {}, round_.assignment.round
        for worker in worker_group.workers:
            try:
                values[worker.global_rank] = self._entrypoint.return_value(number, worker.local_rank)
            except ReturnValueError as error:
                failure = round_.failure_after_success(worker.local_rank, str(error))
                return RunResult(WorkerState.FAILED, failures={failure.rank: failure})
        return RunResult(WorkerState.SUCCEEDED, return_values=values)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: float = 30) -> None:
        self._drain()
        round_ = self._local_round
        if round_ is not None and not round_.gone:
            self._hasten_stop(death_sig, timeout)
            self._await_gone(round_)

    def _await_gone(self, round_: LocalRound) -> None:
        """Or until it is certain that some of it will not go."""
        if self._post.keeper is not None:
            self._attention = Attention(self._post.keeper)
        while self._attention is not None and not (round_.gone or round_.stuck):
            now_ns = boot_ns()
            next_ns = self._attention.look(now_ns, round_.kill_at_ns)
            round_.stuck = self._attention.stuck
            self._pump(min((next_ns - now_ns) / 10**9, _PUMP_S))

    def _hasten_stop(self, death_sig: int, timeout: float) -> None:
        if self._local_round is not None:
            now_ns = boot_ns()
            self._local_round.stop_sent(now_ns, now_ns + round(timeout * 10**9))
        if self._post.keeper is not None:
            self._post.keeper.stop(death_signal=death_sig, grace=timeout)

    def _left_behind(self) -> tuple[int, ...]:
        round_ = self._local_round
        return round_.stuck if round_ is not None and not round_.gone else ()

    def _late_failures(self) -> tuple[WorkerFailure, ...]:
        return self._local_round.take_failures(late=True) if self._local_round else ()

    # --- the keeper

    def _set_fence(self, term_at_ms: int, kill_at_ms: int) -> None:
        self._post.set_fence(term_at_ms * 10**6, kill_at_ms * 10**6)
        if self._local_round is not None:
            self._local_round.fence_ns = self._post.fence_ns

    def _set_obituary(self, identity: SetIdentity) -> None:
        self._post.set_identity(identity)

    def _leave_obituary(self, message: str) -> None:
        self._post.owe_obituary(message)

    def _drain(self) -> None:
        """Take note of what the keeper told."""
        if self._unswept:
            self._try_sweep(timeout=0)
        if self._post.keeper is None:
            return
        for event in self._post.keeper.events():
            if isinstance(event, KeeperDied):
                self._replace_keeper(event)
            else:
                self._note(event)
        self._look_at_timers()

    def _note(self, event: KeeperEvent) -> None:
        round_ = self._local_round
        if round_ is None or isinstance(event, KeeperDied):
            return
        if event.round != round_.assignment.round:
            return  # The answer to a stop that came when its round was gone already.
        match event:
            case Spawned():
                round_.pids = dict(event.pids)
                if self._watchdog is not None:
                    self._watchdog.set_workers(event.pids, round_.assignment.first_rank)
            case SpawnFailed():
                round_.start_failure = (event.local_rank, event.error)
                self._gone(round_)
            case WorkerExited():
                round_.exited(event)
                if self._watchdog is not None:
                    self._watchdog.worker_gone(event.local_rank)
            case Answered():
                if self._attention is not None:
                    self._attention.answered(event)
            case Gone():
                self._gone(round_)

    def _gone(self, round_: LocalRound) -> None:
        round_.gone = True
        if self._watchdog is not None:
            self._watchdog.forget_workers()
        self._output.finish()
        self._entrypoint.clear()

    def _replace_keeper(self, event: KeeperDied) -> None:
        """The workers died with it; what they started is ours to kill."""
        logger.error("the keeper died (exit code %d): ending what it kept", event.exit_code)
        self._post.vacate()
        self._attention = None
        round_ = self._local_round
        if round_ is not None and not round_.gone:
            round_.keeper_died(event.exit_code, boot_ns())
        self._sweep()

    def _sweep(self) -> None:
        """Until nothing is left; what does not end is tried again at every turn."""
        stuck_ns = boot_ns() + OVERDUE_NS
        while left := self._try_sweep(_SWEEP_S):
            if self._local_round is not None and boot_ns() >= stuck_ns:
                self._local_round.stuck, self._unswept = left, True
                return
            self._pump(0)

    def _try_sweep(self, timeout: float) -> tuple[int, ...]:
        """What is left. If nothing is, there is a keeper again."""
        if left := self._post.sweep(timeout):
            return left
        self._unswept = False
        if self._local_round is not None and not self._local_round.gone:
            self._gone(self._local_round)
        self._post.fill()
        return ()

    def _setup_healthcheck(self) -> None:
        """Once for the agent's whole life: a probe must not fail because the job re-forms. torch's name."""
        self._health = AgentHealth(
            turned_at=lambda: self._turned_at,
            has_workers=lambda: WorkerState.is_running(self._worker_group.state),
            watchdog=self._watchdog,
        )
        self._health.start(self._environ, self._health_check_server)

    # --- the watchdog

    def _setup_local_watchdog(self) -> None:
        """One for the agent's whole life, if it is asked for. torch's name."""
        if self._environ.get(ENABLE_WATCHDOG_VARIABLE) != "1":
            return
        from rallypoint_agent.file_timer import FILE_VARIABLE, FileTimerServer, default_path

        path = os.path.abspath(self._environ.get(FILE_VARIABLE) or default_path())
        self._watchdog = FileTimerServer(path, self._shutdown_timeout, self._log_watchdog_event)
        self._environ[FILE_VARIABLE] = path

    def _look_at_timers(self) -> None:
        if self._watchdog is not None:
            self._expired += self._watchdog.look()

    def _watchdog_status(self) -> WatchdogStatus:
        return self._watchdog.status if self._watchdog else WatchdogStatus()

    def _expired_timers(self) -> list[TimerExpired]:
        expired, self._expired = self._expired, []
        return [
            TimerExpired(self._round, timer.local_rank, timer.request.scope_id, timer.request.signal)
            for timer in expired
            if timer.request.signal
        ]

    def _kill_worker(self, effect: KillWorker) -> None:
        if self._local_round is not None:
            self._local_round.condemn(effect.local_rank, boot_ns(), effect.signal, effect.reason)
            self._post.need().kill_worker(effect.round, effect.local_rank, effect.signal)

    # --- what the workers are given

    def _worker_envs(self, spec: WorkerSpec, assignment: Assignment) -> dict[int, dict[str, str]]:
        group = GroupEnv(
            base=self._environ,
            role=spec.role,
            local_world_size=spec.local_world_size,
            max_restarts=spec.max_restarts,
            run_id=self._run_id,
            job_uid=self._job_uid,
            incarnation=self._incarnation,
            virtual_local_rank=spec.virtual_local_rank,
            use_agent_store=self._core.config.job_spec.store_host is StoreHost.AGENT,
        )
        return {rank: worker_env(group, assignment, rank) for rank in range(spec.local_world_size)}


def _bindings(spec: WorkerSpec, environ: Mapping[str, str]) -> dict[int, Cpus]:
    if spec.numa_options is None:
        return {}
    from rallypoint_agent.numa_topology import bindings

    return bindings(spec.numa_options, spec.local_world_size, environ)


def _refuse_what_is_missing(spec: WorkerSpec, start_method: str) -> None:
    """Nothing that was asked for is left out unsaid."""
    if start_method not in ("spawn", "fork", "forkserver"):
        raise ValueError(f"start_method must be spawn, fork or forkserver, not {start_method!r}")
    if start_method == "fork" and not isinstance(spec.entrypoint, str):
        raise ValueError("start_method 'fork' cannot be used: the agent has threads; a function is always spawned")
