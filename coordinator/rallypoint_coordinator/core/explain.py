"""Why a life is in its state: one machine word, one sentence, and when the waiting ends.

After every event it is looked at whether the headline changed; how far it has come is put in words only for who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from rallypoint.model import JobState
from rallypoint.texts import counted
from rallypoint_coordinator.core import recovery, rendezvous
from rallypoint_coordinator.core.directives import place_of
from rallypoint_coordinator.core.effects import Explain
from rallypoint_coordinator.core.membership import is_suspect
from rallypoint_coordinator.core.state import Life, Round, Watch
from rallypoint_coordinator.core.step import Step

SILENT_MAX = 64
"""Of so many leases a participant that has gone silent is looked for: some may be of standbys, which matter less."""


def _nothing_more() -> str:
    return ""


class Explanation(NamedTuple):
    """``progress`` changes with every node; what is logged is only a change of the headline.

    It is to be asked for before the next event.
    """

    reason: str
    headline: str
    until_ms: int | None = None
    progress: Callable[[], str] = _nothing_more


def explain(step: Step) -> None:
    """Bring the life's explanation up to date, in O(1), and have it logged if its headline changed."""
    life, watch = step.life, step.life.watch
    watch.explained_at_ms = step.stamp.at_ms
    reason, headline, watch.until_ms, _ = EXPLAIN[life.facts.state](life, step.stamp.at_ms)
    if (reason, headline) != (watch.reason, watch.headline):
        watch.reason, watch.headline = reason, headline
        message, _ = as_of(life, step.stamp.at_ms)
        step.effect(Explain(life.facts.job, life.facts.uid, reason, message))


def as_of(life: Life, now_ms: int) -> tuple[str, int | None]:
    """The message, and when what it waits for runs out: for who asks between two events.

    Silence is no event, and while a round runs it is what changes the message. All else is as the last event left it.
    """
    runs = life.facts.state is JobState.RUNNING
    found = EXPLAIN[life.facts.state](life, now_ms if runs else life.watch.explained_at_ms)
    silent = _silence(life, now_ms) if runs else None
    progress, until_ms = silent or (found.progress(), found.until_ms)
    return f"{found.headline}: {progress}" if progress else found.headline, until_ms


def _gathering(life: Life, now_ms: int) -> Explanation:
    verdict = rendezvous.consider(life.facts, life.watch, now_ms)
    assert isinstance(verdict, rendezvous.Wait), "settle has taken every step that is due"
    return Explanation(verdict.reason, verdict.headline, verdict.until_ms, verdict.progress)


def _recovering(life: Life, now_ms: int) -> Explanation:
    headline = "recovering: the records of this job are lost"
    return Explanation("RECOVERING", headline, life.watch.recovery_ends_ms, lambda: _came_back(life))


def _came_back(life: Life) -> str:
    claims = life.watch.claims
    assert claims is not None
    found = claims.newest(recovery.first_adoptable(life.facts))
    if found is None:
        return f"{counted(len(life.presences), 'node')} came back, none of a round that runs"
    nodes = counted(found.key.group_world_size, "node")
    return f"{len(found.claims)} of {nodes} of round {found.key.round} came back"


def _running(life: Life, now_ms: int) -> Explanation:
    current, spec, watch = life.facts.round, life.facts.spec, life.watch
    assert current is not None
    headline = _runs(current.number, current.restart_count, spec.max_restarts, len(current.places), current.world_size)
    if watch.starting and watch.scale_up_at_ms is None:
        return Explanation("ROUND_RUNS", headline, watch.start_deadline_ms, lambda: _starts(watch))
    until_ms = None if life.facts.hold else watch.scale_up_at_ms
    return Explanation("ROUND_RUNS", headline, until_ms, lambda: _succeeded(current))


@lru_cache(maxsize=1024)
def _runs(number: int, restart_count: int, max_restarts: int, nodes: int, workers: int) -> str:
    restarts = f"restart {restart_count} of {max_restarts}"
    return f"round {number} runs, {restarts}: {counted(nodes, 'node')}, {counted(workers, 'worker')}"


def _starts(watch: Watch) -> str:
    return f"waiting for {counted(len(watch.starting), 'node')} to start the workers"


def _succeeded(current: Round) -> str:
    return f"{counted(len(current.succeeded), 'node')} succeeded" if current.succeeded else ""


def _silence(life: Life, now_ms: int) -> tuple[str, int] | None:
    """Which participant has been silent for longest, and when its lease ends; None if all are well. O(1)."""
    facts = life.facts
    assert facts.round is not None
    for lease_id in islice(life.watch.heard, SILENT_MAX):
        presence = life.presences[lease_id]
        silent_ms = now_ms - presence.heard_at_ms
        if silent_ms < facts.spec.heartbeat_interval_ms:
            return None
        if silent_ms < presence.heartbeat_interval_ms or not is_suspect(presence, now_ms):
            continue
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
        return Explanation(current.stop_cause.value, headline, watch.remains_until_ms, _remains)
    until_ms = watch.stop_deadline_ms if watch.stop_deadline_ms is not None else watch.revoked_end_ms
    return Explanation(current.stop_cause.value, headline, until_ms, lambda: _remaining(watch))


def _remains() -> str:
    return "what workers have started may still run"


def _remaining(watch: Watch) -> str:
    return f"{counted(len(watch.remaining), 'node')} may still have workers"


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
