"""A3 from both sides: no worker outlives its agent's lease, and no lease is given up before it can have run out.

Nor does a fence strike but for want of messages: what the coordinator heard in time, it answered.
"""

from __future__ import annotations

from dataclasses import dataclass

from rallypoint.model import FENCE_MARGIN_MS, JobSpec, Welcome
from rallypoint_coordinator.core.effects import Output, SendAck, SendLeaseStale, SendWelcome
from rallypoint_coordinator.core.events import (
    AgentAttached,
    AgentHeartbeat,
    AgentLeft,
    AgentObserved,
    Event,
    GoneReported,
)
from rallypoint_coordinator.core.records import GoneReason, MemberGone
from simulation.keeper_group import Group
from simulation.options import SHORTEST_LEASE_MS
from simulation.world import Violation, World

EXPIRY_MARGIN_MS = 900
"""The coordinator waits 1 s longer than the holder, on a clock that drifts a little."""


@dataclass(slots=True)
class _Answers:
    """Of a lease, on the clock of its agent: when what was acknowledged last was sent. ``owed_ms``: when that was sent
    which had to be acknowledged since, and was not."""

    interval_ms: int
    acked_ms: int
    owed_ms: int | None = None


class LeaseOracle:
    """All times are virtual time, that of nobody's clock, where nothing else is said."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._specs: dict[str, JobSpec] = {}
        self._contact_ms: dict[str, int] = {}
        self._base_ms: dict[str, int] = {}
        self._started_ms = 0
        self._heard_ms: dict[int, int] = {}
        self._stream_of: dict[int, int] = {}
        self._ttl_ms: dict[int, int] = {}
        """Of each lease that was welcomed."""
        self._lease_of: dict[str, int] = {}
        """The newest, by incarnation."""
        self._answers: dict[int, _Answers] = {}
        self._has_lost = False

    # --- the agent's side, by incarnation

    def started(self, incarnation: str, spec: JobSpec) -> None:
        self._specs[incarnation] = spec

    def renewed(self, incarnation: str, sent_ms: int, group: Group | None) -> None:
        """An acknowledgement came for a message sent then."""
        self._contact_ms[incarnation] = max(sent_ms, self._contact_ms.get(incarnation, 0))
        self._move_base(incarnation, sent_ms, group)

    def held(self, incarnation: str, asked_ms: int, group: Group | None) -> None:
        """Asked then, all refused or the coordinator was recovering: within the outage that counts as much."""
        contact_ms = self._contact_ms.get(incarnation)
        outage_ms = self._specs[incarnation].coordinator_outage_ms
        if contact_ms is not None and asked_ms - contact_ms <= outage_ms * 1.001 + 1:
            self._move_base(incarnation, asked_ms, group)

    def strikes(self, incarnation: str, clock_ms: int) -> None:
        """Its fence does, when its clock shows that. It would not, were all answered that was heard of it."""
        answers = self._answers.get(self._lease_of.get(incarnation, 0))
        if answers is None or answers.owed_ms is None:
            return
        spec = self._specs[incarnation]
        put_off_ms = answers.owed_ms + spec.lease_ttl_ms - FENCE_MARGIN_MS - spec.fence_grace_ms
        if clock_ms < put_off_ms:
            raise Violation(
                "A3",
                f"the fence of {incarnation} strikes at {clock_ms} by its clock: the coordinator has heard what it sent"
                f" at {answers.owed_ms}, and acknowledged what it sent at {answers.acked_ms}",
            )

    def workers_end(self, group: Group) -> None:
        self._demand_lease(group)

    def _move_base(self, incarnation: str, sent_ms: int, group: Group | None) -> None:
        if group is not None and group.live:
            self._demand_lease(group)
        self._base_ms[incarnation] = max(sent_ms, self._base_ms.get(incarnation, 0))

    def _demand_lease(self, group: Group) -> None:
        if group.unkillable:
            return
        ttl_ms = self._specs[group.incarnation].lease_ttl_ms
        over_ms = self._world.now_ms - self._base_ms.get(group.incarnation, 0) - ttl_ms
        if over_ms > 0:
            raise Violation(
                "A3", f"{group.incarnation} still has workers of round {group.round} {over_ms} ms after its lease"
            )

    # --- the coordinator's side, by lease

    def coordinator_started(self) -> None:
        self._started_ms = self._world.now_ms
        self._heard_ms.clear()
        self._stream_of.clear()
        self._answers.clear()

    def journal_lost(self, revision: int) -> None:
        """Leases after that revision are not known any more; others get their ids."""
        self._has_lost = True
        self._ttl_ms = {lease_id: ttl_ms for lease_id, ttl_ms in self._ttl_ms.items() if lease_id <= revision}

    def coordinator_stepped(self, event: Event, output: Output) -> None:
        for entry in output.records:
            if isinstance(entry.record, MemberGone) and _has_run_out(event, entry.record):
                self._demand_expired(event, entry.record)
        match event:
            case AgentAttached():
                self._note_welcome(event, output)
            case AgentHeartbeat() | AgentObserved() | AgentLeft():
                stale = any(isinstance(effect, SendLeaseStale) for effect in output.effects)
                if not stale and self._stream_of.get(event.lease_id) == event.stream:
                    self._heard_ms[event.lease_id] = self._world.now_ms
                    if not isinstance(event, AgentLeft):
                        self._note_answer(event, output)
            case _:
                pass

    def _note_welcome(self, event: AgentAttached, output: Output) -> None:
        for effect in output.effects:
            if isinstance(effect, SendWelcome):
                self._stream_of[effect.welcome.lease_id] = event.stream
                self._heard_ms[effect.welcome.lease_id] = self._world.now_ms
                self._ttl_ms[effect.welcome.lease_id] = event.hello.job_spec.lease_ttl_ms
                self._lease_of[event.hello.incarnation] = effect.welcome.lease_id
                sent_ms = _sent_ms(event)
                self._answers[effect.welcome.lease_id] = _Answers(effect.welcome.heartbeat_interval_ms, sent_ms)
                _demand_chances(event.hello.job_spec, effect.welcome)

    def _note_answer(self, event: AgentHeartbeat | AgentObserved, output: Output) -> None:
        """Heartbeats are to be acknowledged, and what comes when one was due; other reports may be left to the next."""
        answers = self._answers[event.lease_id]
        sent_ms = _sent_ms(event)
        if SendAck(event.stream, event.seq) in output.effects:
            answers.acked_ms, answers.owed_ms = sent_ms, None
        elif isinstance(event, AgentHeartbeat) or sent_ms - answers.acked_ms >= answers.interval_ms:
            answers.owed_ms = sent_ms

    def _demand_expired(self, event: Event, record: MemberGone) -> None:
        if isinstance(event, AgentAttached):
            same = event.hello.node == record.node
            # The one that the journal knows may have given way to this one in records that are lost.
            brings_round = self._has_lost and event.hello.observed.assignment is not None
            if not same or (event.hello.observed.phase.may_have_workers and not brings_round):
                raise Violation("C4", f"lease {record.lease_id} of {record.node} is given up for {event.hello}")
            return
        silent_ms = self._world.now_ms - max(self._started_ms, self._heard_ms.get(record.lease_id, 0))
        # A lease that was never welcomed by anybody we know of is judged by the shortest.
        ttl_ms = self._ttl_ms.get(record.lease_id, SHORTEST_LEASE_MS)
        if silent_ms < ttl_ms + EXPIRY_MARGIN_MS:
            raise Violation("A3", f"lease {record.lease_id} of {record.node} expired after {silent_ms} ms of silence")


def _demand_chances(spec: JobSpec, welcome: Welcome) -> None:
    """Whatever the fleet, three heartbeats fit between a renewal and the fence."""
    beats_ms = 3 * welcome.heartbeat_interval_ms
    if beats_ms + spec.fence_grace_ms + 1_000 > spec.lease_ttl_ms or 2 * beats_ms < spec.lease_ttl_ms - 6:
        raise Violation("A3", f"lease {welcome.lease_id} of {spec.lease_ttl_ms} ms has 3 heartbeats in {beats_ms} ms")


def _sent_ms(event: AgentAttached | AgentHeartbeat | AgentObserved) -> int:
    assert event.clock is not None, "every agent here says what its clock shows"
    return event.clock.sent_ms


def _has_run_out(event: Event, record: MemberGone) -> bool:
    """What remains are goodbyes and obituaries; one for a lease that was revoked has that as its reason."""
    revoked = record.reason is GoneReason.REVOKED and not isinstance(event, GoneReported)
    return revoked or record.reason is GoneReason.EXPIRED
