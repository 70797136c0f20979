"""Why a life is in its state: one machine word, one sentence, and when the waiting ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import NamedTuple

from rallypoint.model import JobState
from rallypoint.texts import counted
from rallypoint_coordinator.core import recovery, rendezvous
from rallypoint_coordinator.core.directives import place_of
from rallypoint_coordinator.core.effects import Explain
from rallypoint_coordinator.core.membership import is_suspect
from rallypoint_coordinator.core.state import Life
from rallypoint_coordinator.core.step import Step

SILENT_MAX = 64
"""Of so many leases a participant that has gone silent is looked for: some may be of standbys, which matter less."""


class Explanation(NamedTuple):
    """``progress`` changes with every node; what is logged is only a change of the headline."""

    reason: str
    headline: str
    progress: str = ""
    until_ms: int | None = None

    @property
    def message(self) -> str:
        return f"{self.headline}: {self.progress}" if self.progress else self.headline


def explain(step: Step) -> None:
    """Bring the life's explanation up to date, in O(1), and have it logged if its headline changed."""
    life, watch = step.life, step.life.watch
    found = EXPLAIN[life.facts.state](life, step.stamp.at_ms)
    watch.message, watch.until_ms = found.message, found.until_ms
    if (found.reason, found.headline) != (watch.reason, watch.headline):
        watch.reason, watch.headline = found.reason, found.headline
        step.effect(Explain(life.facts.job, life.facts.uid, found.reason, found.message))


def as_of(life: Life, now_ms: int) -> tuple[str, int | None]:
    """The message, and when what it waits for runs out: for who asks between two events.

    Silence is no event, and while a round runs it is what changes the message.
    """
    if life.facts.state is not JobState.RUNNING:
        return life.watch.message, life.watch.until_ms
    found = _running(life, now_ms)
    return found.message, found.until_ms


def _gathering(life: Life, now_ms: int) -> Explanation:
    verdict = rendezvous.consider(life.facts, life.watch, now_ms)
    assert isinstance(verdict, rendezvous.Wait), "settle has taken every step that is due"
    return Explanation(verdict.reason, verdict.headline, verdict.progress, verdict.until_ms)


def _recovering(life: Life, now_ms: int) -> Explanation:
    claims = life.watch.claims
    assert claims is not None
    found = claims.newest(recovery.first_adoptable(life.facts))
    progress = f"{counted(len(life.presences), 'node')} came back, none of a round that runs"
    if found is not None:
        nodes = counted(found.key.group_world_size, "node")
        progress = f"{len(found.claims)} of {nodes} of round {found.key.round} came back"
    return Explanation(
        "RECOVERING", "recovering: the records of this job are lost", progress, life.watch.recovery_ends_ms
    )


def _running(life: Life, now_ms: int) -> Explanation:
    current, spec = life.facts.round, life.facts.spec
    assert current is not None
    headline = (
        f"round {current.number} runs, restart {current.restart_count} of {spec.max_restarts}:"
        f" {counted(len(current.places), 'node')}, {counted(current.world_size, 'worker')}"
    )
    watch = life.watch
    if silent := _silence(life, now_ms):
        progress, until_ms = silent
        return Explanation("ROUND_RUNS", headline, progress, until_ms)
    if watch.starting and watch.scale_up_at_ms is None:
        progress = f"waiting for {counted(len(watch.starting), 'node')} to start the workers"
        return Explanation("ROUND_RUNS", headline, progress, watch.start_deadline_ms)
    progress = f"{counted(len(current.succeeded), 'node')} succeeded" if current.succeeded else ""
    return Explanation("ROUND_RUNS", headline, progress, None if life.facts.hold else watch.scale_up_at_ms)


def _silence(life: Life, now_ms: int) -> tuple[str, int] | None:
    """Which participant has been silent for longest, and when its lease ends; None if all are well. O(1)."""
    facts = life.facts
    assert facts.round is not None
    for lease_id in islice(life.watch.heard, SILENT_MAX):
        presence = life.presences[lease_id]
        silent_ms = now_ms - presence.heard_at_ms
        if silent_ms < facts.spec.heartbeat_interval_ms or not is_suspect(facts.spec, presence, now_ms):
            return None
        seated = place_of(facts, facts.members[presence.node]) is not None
        if seated and presence.node not in facts.round.succeeded:
            said = f"{presence.node} has said nothing for {silent_ms // 1000} s and is lost when its lease ends"
            return said, life.watch.leases.of(lease_id)
    return None


def _stopping(life: Life, now_ms: int) -> Explanation:
    current, watch = life.facts.round, life.watch
    assert current is not None
    assert current.stop_cause is not None
    headline = f"round {current.number} is being stopped: {current.stop_message}"
    if watch.remains_until_ms is not None:
        progress = "what workers have started may still run"
        return Explanation(current.stop_cause.value, headline, progress, watch.remains_until_ms)
    progress = f"{counted(len(watch.remaining), 'node')} may still have workers"
    until_ms = watch.stop_deadline_ms if watch.stop_deadline_ms is not None else watch.revoked_end_ms
    return Explanation(current.stop_cause.value, headline, progress, until_ms)


def _decided(life: Life, now_ms: int) -> Explanation:
    outcome = life.facts.outcome
    assert outcome is not None
    return Explanation(outcome.reason, outcome.message)


EXPLAIN: Mapping[JobState, Callable[[Life, int], Explanation]] = {
    JobState.GATHERING: _gathering,
    JobState.RECOVERING: _recovering,
    JobState.RUNNING: _running,
    JobState.STOPPING: _stopping,
    JobState.SUCCEEDED: _decided,
    JobState.FAILED: _decided,
    JobState.CANCELLED: _decided,
}
