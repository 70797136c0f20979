"""Waiting for the participants of a new round to start their workers, for JobSpec.start_timeout_ms at most."""

from __future__ import annotations

from rallypoint.model import AgentPhase, Observed, WorkerState
from rallypoint_coordinator.core.round_changes import Onset
from rallypoint_coordinator.core.state import Life, Round


def await_starts(life: Life, now_ms: int) -> None:
    """Note who has not said yet that its workers run: all participants, after a coordinator restart too."""
    current = life.facts.round
    assert current is not None
    leases = {place.seat.lease_id for node, place in current.places.items() if node not in current.succeeded}
    life.watch.starting, life.watch.is_spawning = leases & life.presences.keys(), False
    deadline_ms = now_ms + life.facts.spec.start_timeout_ms
    life.watch.start_deadline_ms = deadline_ms if life.watch.starting else None


def note_report(life: Life, lease_id: int, report: Observed) -> None:
    """A participant says something of the round."""
    current, watch = life.facts.round, life.watch
    assert current is not None
    if lease_id in watch.starting and has_started(current, report):
        watch.starting.discard(lease_id)
    if not watch.starting:
        watch.start_deadline_ms = None


def forget(life: Life) -> None:
    """The round does not run any more."""
    life.watch.starting.clear()
    life.watch.start_deadline_ms, life.watch.is_spawning = None, False


def have_all_started(life: Life) -> bool:
    """Whether the last participant of a new round has just started its workers: true once."""
    if life.watch.starting or not life.watch.is_spawning:
        return False
    life.watch.is_spawning = False
    return True


def onset_of_delay(life: Life) -> Onset:
    """That the workers were not started in time: from when they were waited for until that time was over."""
    deadline_ms = life.watch.start_deadline_ms
    assert deadline_ms is not None
    return Onset(deadline_ms - life.facts.spec.start_timeout_ms, deadline_ms)


def has_started(current: Round, report: Observed) -> bool:
    """Whether it had a moment in which every worker ran. An agent that lists no workers is believed that it has."""
    if report.round < current.number:
        return False
    is_starting = any(worker.state is WorkerState.INIT for worker in report.workers)
    return report.phase is not AgentPhase.RUNNING or not is_starting


def overdue(life: Life, now_ms: int) -> list[int]:
    """The leases of those that did not start their workers in time."""
    deadline_ms = life.watch.start_deadline_ms
    return sorted(life.watch.starting) if deadline_ms is not None and now_ms >= deadline_ms else []
