"""What the nodes of a life that is being recovered claim: which round each ran last, and its place in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from rallypoint.model import Endpoint
from rallypoint_coordinator.core.places import places_of
from rallypoint_coordinator.core.records import Place


class RoundKey(NamedTuple):
    """What all claims for one round agree on."""

    round: int
    restart_count: int
    group_world_size: int
    world_size: int
    endpoint: Endpoint


class Claim(NamedTuple):
    """A node's place in the round, and whether it has live workers. ``offer_id`` is 0 but for group rank 0."""

    key: RoundKey
    place: Place
    is_live: bool
    offer_id: int


@dataclass(slots=True)
class ClaimedRound:
    """The claims for one round, by node."""

    key: RoundKey
    claims: dict[str, Claim] = field(default_factory=dict)
    live: int = 0

    @property
    def is_whole(self) -> bool:
        """O(n) only once there are enough claims."""
        if len(self.claims) != self.key.group_world_size:
            return False
        places = {place.seat.node: place for place in self.places}
        from_order = places_of(tuple(place.seat for place in self.places))
        size = sum(place.seat.local_world_size for place in self.places)
        return places == from_order and size == self.key.world_size

    @property
    def places(self) -> tuple[Place, ...]:
        """In group rank order; of nodes that claim the same place, the first by name."""
        by_rank: dict[int, Place] = {}
        for node in sorted(self.claims):
            place = self.claims[node].place
            by_rank.setdefault(place.group_rank, place)
        return tuple(by_rank[rank] for rank in sorted(by_rank))


class Claims:
    """Every node's claim. A change costs O(1)."""

    def __init__(self) -> None:
        self._rounds: dict[RoundKey, ClaimedRound] = {}
        self._of_node: dict[str, Claim] = {}

    def __len__(self) -> int:
        return len(self._of_node)

    def put(self, claim: Claim) -> None:
        """The node's claim, in place of its earlier one."""
        node = claim.place.seat.node
        self.drop(node)
        self._of_node[node] = claim
        claimed = self._rounds.setdefault(claim.key, ClaimedRound(claim.key))
        claimed.claims[node] = claim
        claimed.live += claim.is_live

    def drop(self, node: str) -> None:
        """The node claims nothing."""
        claim = self._of_node.pop(node, None)
        if claim is None:
            return
        claimed = self._rounds[claim.key]
        del claimed.claims[node]
        claimed.live -= claim.is_live
        if not claimed.claims:
            del self._rounds[claim.key]

    def whole_and_live(self, first_round: int) -> ClaimedRound | None:
        """The highest round from ``first_round`` on that is whole and has live workers."""
        found = (it for it in self._candidates(first_round) if it.live and it.is_whole)
        return max(found, key=lambda it: it.key, default=None)

    def newest(self, first_round: int) -> ClaimedRound | None:
        """The highest round from ``first_round`` on; of several with its number the one with the most claims."""
        candidates = self._candidates(first_round)
        return max(candidates, key=lambda it: (it.key.round, len(it.claims), it.key), default=None)

    def _candidates(self, first_round: int) -> list[ClaimedRound]:
        return [claimed for claimed in self._rounds.values() if claimed.key.round >= first_round]
