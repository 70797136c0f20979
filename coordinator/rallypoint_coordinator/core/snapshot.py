"""The durable facts of the whole cluster as one value: what a snapshot keeps in place of the records that led there."""

from __future__ import annotations

from dataclasses import replace

from rallypoint.values import dataclass
from rallypoint_coordinator.core.history import EpochStart
from rallypoint_coordinator.core.state import Facts, Round


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """Lives are in the order in which they began. Nothing else is needed: who was decided when follows from them."""

    cluster_id: str
    epoch: int
    born_wall_ms: int = 0
    former_cluster_ids: tuple[str, ...] = ()
    epochs: tuple[EpochStart, ...] = ()
    lives: tuple[Facts, ...]


def copy_of(facts: Facts) -> Facts:
    """A copy that later records do not change: as deep as :mod:`.evolve` changes things in place."""
    return replace(
        facts,
        members={node: replace(member) for node, member in facts.members.items()},
        gone_nodes=dict(facts.gone_nodes),
        round=_copy_of_round(facts.round) if facts.round is not None else None,
    )


def _copy_of_round(current: Round) -> Round:
    return replace(current, places=dict(current.places), succeeded=set(current.succeeded))
