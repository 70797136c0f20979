"""Who holds which lease over which stream, and what proves a member gone: worked out from events and records alone.

Nothing here reads the machine's state, and nothing of the core is called.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from property.demand import demand
from rallypoint.model import NO_ROUND, Capability, Hello, NodeSpec, Observed, Version
from rallypoint_coordinator.core.events import AgentHeartbeat, AgentLeft, AgentObserved, GoneReported
from rallypoint_coordinator.core.records import GoneReason, LeaseRevoked, MemberGone, MemberJoined

FromHolder = AgentObserved | AgentHeartbeat | AgentLeft

DRIFT_PER_MILLE, MARGIN_MS, UNFENCED_MS = 1, 1_000, 600_000


@dataclass(slots=True, kw_only=True)
class LeaseTruth:
    """One lease, from the record that gave it to the record that ended it."""

    lease_id: int
    uid: str
    node: str
    incarnation: str
    spec: NodeSpec
    capabilities: frozenset[Capability]
    ttl_ms: int
    heard_ms: int
    attach_seq: int = -1
    stream: int | None = None
    report: Observed = field(default_factory=Observed)
    drained: bool = False
    expelled: tuple[int, ...] = ()
    """Processes that it could not end, since it was expelled and until it is readmitted."""
    revoked: bool = False
    gone: bool = False
    proof: str = ""
    """Why no worker of it can be alive, whatever the round; "" while there may be."""
    clear_round: int = NO_ROUND
    """It ran this round, or a later one, and said that no worker is alive."""
    clear_versions: set[Version] = field(default_factory=set)
    """It said that no worker is alive after it had seen directives of these versions."""

    def note_report(self, report: Observed) -> None:
        self.report = report
        if not report.phase.may_have_workers and not report.unkillable_pids:
            self.clear_round = max(self.clear_round, report.round)
            self.clear_versions.add(report.version)

    def is_over(self, now_ms: int) -> bool:
        """Whether it ran out, on the holder's side too."""
        unfenced_ms = 0 if Capability.SELF_FENCES in self.capabilities else UNFENCED_MS
        return now_ms >= self.heard_ms + self.ttl_ms + self.ttl_ms * DRIFT_PER_MILLE // 1_000 + MARGIN_MS + unfenced_ms

    def is_gone_from(self, number: int, stop: Version) -> bool:
        """Whether it is proven that no worker of a round that is being stopped is alive, or ever will be."""
        seen = any(it.epoch >= stop.epoch and it.revision >= stop.revision for it in self.clear_versions)
        return bool(self.proof) or self.clear_round >= number or seen


class Leases:
    """All leases of all lives, and the streams of this start of the coordinator."""

    def __init__(self) -> None:
        self.by_id: dict[int, LeaseTruth] = {}
        self.of_stream: dict[int, int] = {}
        self.ended: set[int] = set()
        """Streams that were told that they end: nothing on them counts."""
        self._without_lease: int | None = None
        """Whose agent attaches right now, saying that it has neither a lease nor workers."""
        self._followed: int | None = None
        """On whose node a later agent attaches right now, with a round of a history that was lost."""

    def restarted(self, now_ms: int) -> None:
        self.of_stream.clear()
        for lease in self.by_id.values():
            lease.stream, lease.heard_ms, lease.attach_seq = None, now_ms, -1

    def live_of(self, uid: str, node: str) -> LeaseTruth | None:
        live = (lease for lease in self.by_id.values() if not lease.gone)
        return next((lease for lease in live if (lease.uid, lease.node) == (uid, node)), None)

    def attached(self, uid: str) -> list[LeaseTruth]:
        """The live leases of a life whose agents can be told something."""
        found = (lease for lease in self.by_id.values() if lease.uid == uid and not lease.gone)
        return [lease for lease in found if lease.stream is not None]

    # --- what came

    def holder(self, event: FromHolder) -> LeaseTruth | None:
        """The lease that the message is rightly sent under; None if it must not be heard."""
        if event.stream in self.ended or self.of_stream.get(event.stream) != event.lease_id:
            return None
        lease = self.by_id[event.lease_id]
        return lease if lease.stream == event.stream and not lease.gone else None

    def heard(self, lease: LeaseTruth, event: FromHolder, now_ms: int) -> None:
        lease.heard_ms, lease.proof = now_ms, ""
        if isinstance(event, AgentObserved):
            lease.note_report(event.observed)
        elif isinstance(event, AgentLeft):
            lease.proof = "it left"

    def obituary(self, event: GoneReported) -> None:
        lease = self.by_id.get(event.lease_id)
        if lease is not None and (lease.uid, lease.incarnation) == (event.job_uid, event.incarnation):
            lease.proof = lease.proof or "its obituary came"

    def hello(self, uid: str, hello: Hello, *, lost: bool) -> None:
        """Without a lease an agent starts no worker. It proves something only if a new lease is given for the old."""
        lease, has_workers = self.live_of(uid, hello.node), hello.observed.may_have_workers
        self._without_lease = self._followed = None
        if lease is not None and lease.incarnation != hello.incarnation and lost and hello.observed.assignment:
            self._followed = lease.lease_id if lease.stream is None else None
        if lost:
            hello = replace(hello, lease_id=0)
        if lease is not None and lease.incarnation == hello.incarnation and hello.lease_id == 0 and not has_workers:
            self._without_lease = lease.lease_id

    def run_out(self, now_ms: int) -> None:
        for lease in self.by_id.values():
            if not lease.gone and lease.is_over(now_ms):
                lease.proof = lease.proof or "its lease ran out"

    def closed(self, stream: int) -> None:
        lease_id = self.of_stream.pop(stream, None)
        if lease_id is not None and self.by_id[lease_id].stream == stream:
            self.by_id[lease_id].stream = None

    # --- what was decided

    def joined(self, uid: str, record: MemberJoined, lease_id: int, ttl_ms: int, now_ms: int) -> None:
        before = self.live_of(uid, record.node)
        demand(before is None, "C2", f"{record.node} gets lease {lease_id} beside {before}")
        demand(lease_id > max(self.by_id, default=0), "C1", f"lease {lease_id} is not new")
        self.by_id[lease_id] = LeaseTruth(
            lease_id=lease_id,
            uid=uid,
            node=record.node,
            incarnation=record.incarnation,
            spec=record.spec,
            capabilities=record.capabilities,
            ttl_ms=ttl_ms,
            heard_ms=now_ms,
        )

    def was_revoked(self, uid: str, record: LeaseRevoked) -> None:
        lease = self.by_id.get(record.lease_id)
        held = lease is not None and (lease.uid, lease.node, lease.gone) == (uid, record.node, False)
        demand(held, "C2", f"{record} revokes no live lease: {lease}")
        assert lease is not None
        demand(not lease.revoked, "C2", f"{record}, for the second time")
        lease.revoked = True

    def recovery_began(self, uid: str) -> None:
        """What followed on a revocation is lost, so that it says nothing any more."""
        for lease in self.by_id.values():
            if lease.uid == uid:
                lease.revoked = False

    def went(self, uid: str, record: MemberGone) -> None:
        lease = self.by_id.get(record.lease_id)
        held = lease is not None and (lease.uid, lease.node, lease.gone) == (uid, record.node, False)
        demand(held, "C2", f"{record} ends no live lease: {lease}")
        assert lease is not None
        if record.lease_id == self._without_lease:
            lease.proof = lease.proof or "it attached without a lease and without workers"
        if record.lease_id == self._followed:
            lease.proof = lease.proof or "a later agent of its node ran a round"
        demand(lease.proof, "C4", f"nothing proves that {record.node} is gone: {record}, {lease}")
        demand(_fits(record.reason, lease.proof), "C4", f"{record}, yet {lease.proof}")
        is_said = record.reason is GoneReason.REVOKED
        demand(is_said == lease.revoked, "C5", f"{record}, yet it was revoked: {lease.revoked}")
        lease.gone, lease.stream = True, None

    def gave_way(self, uid: str) -> None:
        """The life is no more, and never had a worker."""
        for lease in self.by_id.values():
            if lease.uid == uid:
                lease.gone, lease.stream = True, None

    # --- what went out

    def welcomed(self, stream: int, lease_id: int, hello: Hello, now_ms: int) -> None:
        lease = self.by_id.get(lease_id)
        ours = lease is not None and (lease.node, lease.incarnation) == (hello.node, hello.incarnation)
        demand(ours, "C2", f"{hello.incarnation} is welcomed with lease {lease_id}: {lease}")
        assert lease is not None
        demand(hello.attach_seq > lease.attach_seq, "C2", f"attach_seq {hello.attach_seq} after {lease.attach_seq}")
        if lease.stream is not None:
            self.ended.add(lease.stream)
        lease.stream, lease.attach_seq, lease.heard_ms, lease.proof = stream, hello.attach_seq, now_ms, ""
        self.of_stream[stream] = lease_id

    def end(self, stream: int) -> None:
        """The stream is told that it ends."""
        self.ended.add(stream)
        lease = self.by_id.get(self.of_stream.get(stream, 0))
        if lease is not None and lease.stream == stream:
            lease.stream = None


def _fits(reason: GoneReason, proof: str) -> bool:
    """Several proofs may have come; only what was claimed is looked at."""
    return bool(proof) and (reason is not GoneReason.LEFT or proof == "it left")
