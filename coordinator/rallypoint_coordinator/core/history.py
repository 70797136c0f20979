"""Which history an agent comes from: this journal's, one that was lost, or a stranger's."""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Hello, Version
from rallypoint.values import dataclass
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.membership import SELF_FENCING, lease_expiry_ms
from rallypoint_coordinator.core.records import CoordinatorStarted, StateLost
from rallypoint_coordinator.core.state import Facts

FORMER_CLUSTERS_MAX = 64
"""So many former clusters a cluster answers for."""

EPOCH_LEAP_MAX = 1_000_000
"""An agent that has seen so many more starts of the coordinator has not seen them of this one."""


EPOCHS_MAX = 64
"""So many epochs are told apart; of earlier ones only that they were."""


class EpochStart(NamedTuple):
    """An epoch, or several as one: the number of the last, and the revisions that began the first and the last."""

    epoch: int
    revision: int
    last_revision: int


@dataclass(frozen=True, slots=True)
class Known:
    """All that the agent has seen is in the journal."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The agent has seen what the journal does not know. ``record`` is to be decided first; None: it was already."""

    record: StateLost | None


@dataclass(slots=True, kw_only=True)
class History:
    """The journal as agents see it. ``former``: the clusters whose journals were lost, and for which it answers."""

    cluster_id: str = ""
    epoch: int = 0
    born_wall_ms: int = 0
    former: dict[str, None] = field(default_factory=dict)
    epochs: list[EpochStart] = field(default_factory=list)
    """When epochs began, ascending: what was shown to agents before an epoch is older than its beginning."""

    def started(self, record: CoordinatorStarted, revision: int) -> None:
        self.cluster_id = record.cluster_id
        self.born_wall_ms = self.born_wall_ms or record.born_wall_ms
        self._begin_epoch(record.epoch, revision)

    def lost(self, record: StateLost, revision: int) -> None:
        if record.former_cluster_id:
            self.former[record.former_cluster_id] = None
        self._begin_epoch(record.epoch, revision)

    def _begin_epoch(self, epoch: int, revision: int) -> None:
        if epoch == self.epoch:
            return
        self.epoch = epoch
        first = revision
        if self.epochs and self.epochs[-1].last_revision == revision - 1:
            # Nothing was decided in between: what this journal has shown is older than both.
            first = self.epochs.pop().revision
        self.epochs.append(EpochStart(epoch, first, revision))
        if len(self.epochs) > EPOCHS_MAX:
            # At worst an agent that was away for so long is asked what it holds.
            self.epochs[:2] = [self.epochs[1]._replace(revision=self.epochs[0].revision)]

    def judge(self, hello: Hello, stamp: Stamp, named: Facts | None = None) -> Known | Lost | Refusal:
        """O(1). Nothing is changed. ``named``: the life that the Hello names, if it is known."""
        seen = hello.highest_version
        if hello.cluster_id in ("", self.cluster_id):
            is_behind = self._is_behind(seen, stamp.revision) or _holds_more(hello, stamp.revision, named)
            if not is_behind:
                return Known()
            return self._behind(seen, stamp.revision) if self._leaps(seen) else self._lost("", seen)
        if self._leaps(seen) or not (hello.cluster_id in self.former or self._may_take_over(hello, stamp)):
            return self._wrong_cluster(hello)
        return self._lost("" if hello.cluster_id in self.former else hello.cluster_id, seen)

    def _is_behind(self, seen: Version, revision: int) -> bool:
        """Whether the journal went backwards: what an epoch showed to an agent came before the next one began."""
        following = next((began for began in self.epochs if began.epoch > seen.epoch), None)
        if following is not None:
            return seen.revision >= following.revision
        return seen > Version(self.epoch, revision)

    def _leaps(self, seen: Version) -> bool:
        return seen.epoch > self.epoch + EPOCH_LEAP_MAX

    def _may_take_over(self, hello: Hello, stamp: Stamp) -> bool:
        """Whether this cluster may be there in the place of the agent's.

        Later nobody can still hold workers for a coordinator that is gone: a fleet that comes then was sent here by
        mistake, and its coordinator may be alive.
        """
        spec = hello.job_spec
        window_ms = spec.coordinator_outage_ms + lease_expiry_ms(spec, 0, SELF_FENCING)
        is_young = stamp.wall_ms - self.born_wall_ms <= window_ms
        return is_young and len(self.former) < FORMER_CLUSTERS_MAX

    def _lost(self, former_cluster_id: str, seen: Version) -> Lost:
        epoch = max(self.epoch, seen.epoch + 1)
        if not former_cluster_id and epoch == self.epoch:
            return Lost(None)
        return Lost(StateLost(former_cluster_id=former_cluster_id, epoch=epoch))

    def _wrong_cluster(self, hello: Hello) -> Refusal:
        return Refusal(
            reason=Reason.WRONG_CLUSTER,
            message=(
                f"the agent belongs to cluster {hello.cluster_id}, this coordinator is {self.cluster_id},"
                " and has been for too long to be there in its place: is this the right address?"
            ),
            field="hello.cluster_id",
            metadata={"ours": self.cluster_id, "theirs": hello.cluster_id},
        )

    def _behind(self, seen: Version, revision: int) -> Refusal:
        return Refusal(
            reason=Reason.JOURNAL_BEHIND,
            message=(
                f"the agent has seen epoch {seen.epoch}, revision {seen.revision}; this coordinator is at"
                f" epoch {self.epoch}, revision {revision}, which is too far behind to be the same cluster's"
            ),
            metadata={"ours": f"{self.epoch}.{revision}", "theirs": f"{seen.epoch}.{seen.revision}"},
        )


def _holds_more(hello: Hello, revision: int, named: Facts | None) -> bool:
    """Whether the agent has what the journal never gave: its epochs may have the lost ones' numbers, and be longer.

    A directive's revision is that of a record of its life.
    """
    if named is None:
        return False
    if hello.highest_version.revision > named.revision:
        return True
    if named.outcome is not None:
        return False
    return hello.observed.round >= named.next_round or hello.lease_id > revision
