"""What an agent tells machines of its life: torch's events and metrics, at torch's points."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rallypoint.model import WorkerState
from rallypoint.values import dataclass
from rallypoint_agent.api import RunResult, Worker, WorkerGroup
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.errors import error_file_data
from rallypoint_agent.events import NULL, Event, EventMetadataValue, EventSource, record
from rallypoint_agent.metrics import put_call, put_metric
from rallypoint_agent.throttled_log import ThrottledLog

if TYPE_CHECKING:
    from rallypoint_agent.file_timer_requests import TimerRequest

logger = logging.getLogger(__name__)

_HARMLESS_EXPIRIES = 20
"""So many lines at once: as many ranks as share a large node."""

_OWN_END_IS_A_FAILURE = frozenset({FinishKind.UNREACHABLE, FinishKind.REFUSED, FinishKind.SIGNALLED})
"""Where torch's agent raises. How the workers fared is told by their own events."""


class FullHostname(threading.Thread):
    """The full name of this host, looked up aside: a resolver that does not answer must hold nobody up.

    Until it is known ``value`` is the plain name.
    """

    def __init__(self) -> None:
        super().__init__(name="hostname", daemon=True)
        self.value = socket.gethostname()
        self.start()

    def run(self) -> None:
        self.value = socket.getfqdn()


@dataclass(slots=True)
class RoundTimer:
    """When the parts of a round's beginning began, by time.perf_counter; in torch each is a method that blocks."""

    waiting_since: float = 0.0
    stop_since: float | None = None
    """None for the first round."""

    def stopping(self) -> None:
        self.stop_since = time.perf_counter()

    def waiting(self) -> None:
        """No worker is alive, the next round is waited for."""
        self.waiting_since = time.perf_counter()


class Telemetry:
    """The members of torch's SimpleElasticAgent that events and metrics are about.

    ``_remaining_restarts`` is the job's budget as the last round's assignment had it. Times are in seconds.
    """

    finish: Finish | None

    def __init__(self, worker_group: WorkerGroup) -> None:
        self._worker_group = worker_group
        self._remaining_restarts = worker_group.spec.max_restarts
        self._total_execution_time = 0
        self._round_timer = RoundTimer()
        self._harmless_expiries = ThrottledLog(
            logger.warning, "timers that kill nobody have expired", most=_HARMLESS_EXPIRIES
        )
        self._hostname = FullHostname() if self._has_listener else None

    # --- events

    def get_event_failed(self) -> Event:
        """That this agent could not do its part, and why."""
        if sys.exc_info()[0] is None and self.finish is not None:
            return self._construct_event("FAILED", EventSource.AGENT, raw_error=self.finish.message)
        return self._construct_event("FAILED", EventSource.AGENT, raw_error=traceback.format_exc())

    def get_event_succeeded(self) -> Event:
        """That this agent did its part; the workers may have failed all the same."""
        return self._construct_event("SUCCEEDED", EventSource.AGENT)

    def record_own_end(self) -> None:
        """For whoever called ``run``: record one of the two."""
        is_failed = self.finish is None or self.finish.kind in _OWN_END_IS_A_FAILURE
        self._record(self.get_event_failed() if is_failed else self.get_event_succeeded())

    @contextlib.contextmanager
    def record_duration(self, state: str) -> Iterator[None]:
        """For a subclass: an event of this state, once the block is through, says how long it took."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._record_duration(state, began)

    @property
    def _has_listener(self) -> bool:
        """Whether events go anywhere: a round has several, and each is some work to put together."""
        return self._worker_group.spec.event_log_handler != NULL

    def _record_duration(self, state: str, began: float) -> None:
        if not self._has_listener:
            return
        duration_ms = (time.perf_counter() - began) * 1000
        self._record(self._construct_event(state, EventSource.AGENT, duration_ms=duration_ms))

    def _record(self, event: Event) -> None:
        record(event, self._worker_group.spec.event_log_handler)

    def _record_worker_events(self, result: RunResult) -> None:
        for worker in self._worker_group.workers:
            failure = result.failures.get(worker.global_rank)
            event = self._construct_event(
                self._get_worker_state(worker, result),
                EventSource.WORKER,
                worker,
                raw_error=json.dumps(error_file_data(failure)) if failure else None,
                exit_code=failure.exit_code if failure else None,
                worker_pid=failure.pid if failure else None,
            )
            self._record(event)

    def _get_worker_state(self, worker: Worker, result: RunResult) -> str:
        """TERMINATED: it ended because it was told to. Raises ValueError for a worker whose end is not known."""
        failure = result.failures.get(worker.global_rank)
        ended_badly = result.state in (WorkerState.UNHEALTHY, WorkerState.FAILED)
        if ended_badly and (failure is None or failure.after_stop):
            return "TERMINATED"
        if failure or worker.global_rank in result.return_values:
            return result.state.value
        raise ValueError(f"Unknown worker: {worker.global_rank}")

    def _log_watchdog_event(self, name: str, request: TimerRequest | None) -> None:
        """torch's hook, with torch's names of what happened; ``request`` is of the timer that it happened to."""
        if request is None:
            self._record_watchdog_event(name, {})
            self._harmless_expiries.settle()
            logger.info("%s", name)
            return
        details = {
            "worker_pid": str(request.pid),
            "scope_id": request.scope_id,
            "expiration_time": str(request.expiration_time),
            "signal": str(request.signal),
        }
        self._record_watchdog_event(name, details)
        # One that kills is its worker's last; of the others a worker may have any number.
        log = logger.warning if request.signal else self._harmless_expiries.tell
        log(f"{name}: " + " ".join(f"{key}={value!r}" for key, value in details.items()))

    def _record_watchdog_event(self, name: str, details: dict[str, str]) -> None:
        """torch's events of its file timer's watchdog: "timer expired" and the like."""
        event = self._construct_event("RUNNING", EventSource.AGENT)
        event.name, event.metadata["metadata"] = name, json.dumps({"watchdog_event": name, **details})
        self._record(event)

    def _construct_event(
        self,
        state: str,
        source: EventSource,
        worker: Worker | None = None,
        raw_error: str | None = None,
        duration_ms: float | None = None,
        exit_code: int | None = None,
        worker_pid: int | None = None,
    ) -> Event:
        group, spec = self._worker_group, self._worker_group.spec
        more: dict[str, object] = {
            "group_world_size": group.group_world_size,
            "entry_point": spec.get_entrypoint_name(),
        }
        if worker is not None:
            # Plain values: torch's are lists of one.
            more |= {
                "local_rank": worker.local_rank,
                "role_rank": worker.role_rank,
                "role_world_size": worker.role_world_size,
                "exit_code": exit_code,
                "worker_pid": worker_pid,
            }
        metadata: dict[str, EventMetadataValue] = {
            "run_id": spec.rdzv_handler.get_run_id(),
            "global_rank": worker.global_rank if worker else None,
            "group_rank": group.group_rank,
            "worker_id": str(worker.id) if worker else None,
            "role": spec.role,
            "hostname": self._hostname.value if self._hostname else socket.gethostname(),
            "state": state,
            "total_run_time": self._total_execution_time,
            "rdzv_backend": spec.rdzv_handler.get_backend(),
            "raw_error": raw_error,
            "metadata": json.dumps(more),
            "agent_restarts": spec.max_restarts - self._remaining_restarts,
            "duration_ms": duration_ms,
        }
        return Event(f"torchelastic.worker.status.{state}", source, time.time_ns() // 1_000_000, metadata)

    # --- the beginning of a round: torch's _rendezvous, _initialize_workers and _restart_workers

    def _note_assignment(self, worker_group: WorkerGroup, assigned_since: float) -> None:
        assert worker_group.assignment is not None
        self._remaining_restarts = max(worker_group.spec.max_restarts - worker_group.assignment.restart_count, 0)
        self._record_duration("RENDEZVOUS", self._round_timer.waiting_since)
        self._record_duration("ASSIGN_WORKER_RANKS", assigned_since)
        _put_call("_assign_worker_ranks", True, assigned_since)
        _put_call("_rendezvous", True, self._round_timer.waiting_since)

    def _note_start(self, succeeded: bool) -> None:
        if succeeded and self._has_listener:
            for worker in self._worker_group.workers:
                self._record(self._construct_event("START", EventSource.WORKER, worker))
        _put_call("_initialize_workers", succeeded, self._round_timer.waiting_since)
        if self._round_timer.stop_since is not None:
            _put_call("_restart_workers", succeeded, self._round_timer.stop_since)

    # --- metrics

    def _put_tick(self, state: WorkerState) -> None:
        role = self._worker_group.spec.role
        put_metric(f"workers.{role}.remaining_restarts", self._remaining_restarts)
        put_metric(f"workers.{role}.{state.name.lower()}", 1)

    def _note_result(self, result: RunResult) -> None:
        """At the end of ``run``, if it is one that torch's ``run`` returns from and the agent had its part in it."""
        if self._worker_group.assignment is not None:
            self._record_metrics(result)
            self._record_worker_events(result)

    def _record_metrics(self, group_results: RunResult) -> None:
        is_failed = group_results.is_failed()
        self._record_flakiness_metric(is_failed)
        restarted = self._remaining_restarts != self._worker_group.spec.max_restarts
        self._record_metric_with_condition("run_total", True)
        self._record_metric_with_condition("run_success_with_retries", not is_failed and restarted)
        self._record_metric_with_condition("run_success_no_retries", not is_failed and not restarted)
        self._record_metric_with_condition("run_failed_with_retries", is_failed and restarted)
        self._record_metric_with_condition("run_failed_no_retries", is_failed and not restarted)

    def _record_metric_with_condition(self, metric_name: str, condition: bool) -> None:
        put_metric(f"workers.{self._worker_group.spec.role}.{metric_name}", int(condition))

    def _record_flakiness_metric(self, is_failed: bool = False) -> None:
        """The part of the restarts that was spent, in percent; 100 for a failure."""
        spec = self._worker_group.spec
        unspent = 0 if is_failed else 100.0 * (self._remaining_restarts + 1) / (spec.max_restarts + 1)
        put_metric(f"workers.{spec.role}.flakiness", int(100.0 - unspent))


def _put_call(method: str, succeeded: bool, began: float) -> None:
    put_call(f"SimpleElasticAgent.{method}", succeeded, time.perf_counter() - began)
