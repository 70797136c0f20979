"""Why a life is in its state: one machine word, one sentence, and when the waiting ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from rallypoint.model import JobState
from rallypoint_coordinator.core import rendezvous
from rallypoint_coordinator.core.effects import Explain
from rallypoint_coordinator.core.state import Life
from rallypoint_coordinator.core.step import Step


class Explanation(NamedTuple):
    reason: str
    message: str
    until_ms: int | None = None


def explain(step: Step) -> None:
    """Bring the life's explanation up to date, in O(1), and have it logged if it changed."""
    life, watch = step.life, step.life.watch
    reason, message, watch.until_ms = EXPLAIN[life.facts.state](life, step.stamp.at_ms)
    if (reason, message) != (watch.reason, watch.message):
        watch.reason, watch.message = reason, message
        step.effect(Explain(life.facts.job, life.facts.uid, reason, message))


def _gathering(life: Life, now_ms: int) -> Explanation:
    verdict = rendezvous.consider(life.facts, life.watch, now_ms)
    assert isinstance(verdict, rendezvous.Wait), "settle has taken every step that is due"
    return Explanation(verdict.reason, verdict.message, verdict.until_ms)


def _running(life: Life, now_ms: int) -> Explanation:
    current, spec = life.facts.round, life.facts.spec
    assert current is not None
    message = (
        f"round {current.number} runs: {len(current.places)} nodes, {current.world_size} workers,"
        f" restart {current.restart_count} of {spec.max_restarts}"
    )
    if current.succeeded:
        message += f"; {len(current.succeeded)} nodes have succeeded"
    return Explanation("ROUND_RUNS", message)


def _stopping(life: Life, now_ms: int) -> Explanation:
    current, watch = life.facts.round, life.watch
    assert current is not None
    assert current.stop_cause is not None
    message = (
        f"round {current.number} is being stopped: {current.stop_message};"
        f" waiting for the workers of {len(watch.remaining)} nodes to be gone"
    )
    return Explanation(current.stop_cause.value, message, watch.stop_deadline_ms)


def _decided(life: Life, now_ms: int) -> Explanation:
    outcome = life.facts.outcome
    assert outcome is not None
    return Explanation(outcome.reason, outcome.message)


EXPLAIN: Mapping[JobState, Callable[[Life, int], Explanation]] = {
    JobState.GATHERING: _gathering,
    JobState.RUNNING: _running,
    JobState.STOPPING: _stopping,
    JobState.SUCCEEDED: _decided,
    JobState.FAILED: _decided,
}
