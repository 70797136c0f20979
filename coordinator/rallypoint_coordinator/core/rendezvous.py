"""Agreeing on the next round: whether it can be formed now, by whom, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from rallypoint.model import Capability, Endpoint, JobState, Outcome
from rallypoint.texts import counted
from rallypoint.values import dataclass
from rallypoint_coordinator.core.records import Seat
from rallypoint_coordinator.core.state import Facts, Member, Watch


@dataclass(frozen=True, slots=True)
class Form:
    """A round can be formed now."""


class Wait(NamedTuple):
    """Not yet: why, and when this waiting ends, on the stamp's clock.

    ``progress``, how far it has come, is to be asked for before the next event.
    """

    reason: str
    headline: str
    until_ms: int
    progress: Callable[[], str]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The waiting ended in vain."""

    outcome: Outcome


def consider(facts: Facts, watch: Watch, now_ms: int) -> Form | Wait | GiveUp:
    """Decide in O(1) what the gathering does now.

    A lost node is waited for, within rejoin_wait, before the others go on without it. Of a job that is held no round is
    formed, and its waiting costs nothing.
    """
    if facts.hold is not None:
        assert watch.hold_ends_ms is not None, "every hold has an end"
        return Wait(
            reason="HELD",
            headline=facts.hold.told,
            progress=lambda: f"{counted(len(watch.ready), 'node')} ready",
            until_ms=watch.hold_ends_ms,
        )
    verdict = _consider_those_here(facts, watch, now_ms)
    if isinstance(verdict, Form) and watch.awaited and now_ms < watch.rejoin_ends_ms:
        missing = next(iter(watch.awaited)) if len(watch.awaited) == 1 else f"{len(watch.awaited)} lost nodes"
        return Wait(
            reason="REJOIN_WAIT",
            headline=f"waiting for {missing} to come back",
            progress=lambda: f"{counted(len(watch.ready), 'node')} ready",
            until_ms=watch.rejoin_ends_ms,
        )
    return verdict


def _consider_those_here(facts: Facts, watch: Watch, now_ms: int) -> Form | Wait | GiveUp:
    """The same, of the nodes that are there.

    Known members never wait: only a first gathering, and one that misses a member whose connection broke, has a last
    call. ``watch.last_call_ends_ms`` is when that ends, None while there are fewer than min_nodes.
    """
    ready, spec = len(watch.ready), facts.spec
    if ready >= spec.max_nodes:
        return Form()
    if watch.last_call_ends_ms is None:
        return _below_min(facts, watch, now_ms)
    all_known = facts.round is not None and not watch.expected
    if all_known or now_ms >= watch.last_call_ends_ms:
        return Form()
    whom = "known nodes that are missing" if facts.round is not None else "more nodes"
    return Wait(
        reason="LAST_CALL",
        headline=f"last call for {whom}",
        progress=lambda: f"{ready} of at most {spec.max_nodes} are ready",
        until_ms=watch.last_call_ends_ms,
    )


def _below_min(facts: Facts, watch: Watch, now_ms: int) -> Wait | GiveUp:
    ready, spec = len(watch.ready), facts.spec
    until_ms = watch.gathering_since_ms + spec.join_timeout_ms
    if now_ms < until_ms:
        return Wait(
            reason="WAITING_FOR_NODES",
            headline=_waiting_for(spec.min_nodes),
            progress=lambda: f"{ready} ready{_held_back(watch)}",
            until_ms=until_ms,
        )
    seconds = spec.join_timeout_ms / 1000
    of_all = f"{ready} of {counted(spec.min_nodes, 'node')}"
    return GiveUp(
        Outcome(
            state=JobState.FAILED,
            reason="JOIN_TIMEOUT",
            message=f"only {of_all} got ready within {seconds:g} s{_held_back(watch)}",
        )
    )


@lru_cache(maxsize=1024)
def _waiting_for(min_nodes: int) -> str:
    return f"waiting for {counted(min_nodes, 'node')}"


def _held_back(watch: Watch) -> str:
    return f", {len(watch.quarantined)} quarantined" if watch.quarantined else ""


def choose(facts: Facts, ready: Iterable[Member]) -> list[Member]:
    """The participants of the next round in group rank order; those left out stand by.

    Ranks are stable: who had a place keeps it, newcomers take the places of those that are missing, then those after
    the last. Newcomers come by --node-rank, then in the order in which they joined. Those that hold their ports come
    before the others: where rank 0's node offers all meet, and a port that nobody holds may be taken by then.
    """
    by_node = {member.node: member for member in ready}
    earlier = list(facts.round.places) if facts.round is not None else []
    stayed = {node for node in earlier if node in by_node}
    newcomers = sorted((member for node, member in by_node.items() if node not in stayed), key=_newcomer_order)
    newcomers.reverse()
    chosen = []
    for node in earlier:
        if node in stayed:
            chosen.append(by_node[node])
        elif newcomers and len(chosen) < facts.spec.max_nodes:
            chosen.append(newcomers.pop())
    chosen.extend(reversed(newcomers))
    return sorted(chosen[: facts.spec.max_nodes], key=lambda member: Capability.HOLDS_PORT not in member.capabilities)


def succeeded(facts: Facts) -> Outcome | None:
    """The job's success, once every node of the round has succeeded."""
    if facts.round is None or len(facts.round.succeeded) < len(facts.round.places):
        return None
    size = len(facts.round.places)
    nodes = f"all {size} nodes" if size > 1 else next(iter(facts.round.places))
    message = f"{nodes} succeeded in round {facts.round.number}"
    return Outcome(state=JobState.SUCCEEDED, reason="ALL_SUCCEEDED", message=message)


def _newcomer_order(member: Member) -> tuple[bool, int, int]:
    return member.spec.node_rank is None, member.spec.node_rank or 0, member.lease_id


def seat_of(member: Member) -> Seat:
    return Seat(
        node=member.node,
        lease_id=member.lease_id,
        local_world_size=member.spec.local_world_size,
        role=member.spec.role or "default",
    )


def unreachable(endpoint: Endpoint, chosen: Sequence[Member], peer_of: Callable[[Member], str]) -> Outcome | None:
    """A loopback endpoint serves only participants on that very machine: refuse it for any other.

    A node that is alone reaches itself, wherever the coordinator sees it.
    """
    if len(chosen) == 1 or not is_loopback(endpoint.host):
        return None
    remote = next((member for member in chosen if not is_loopback(peer_of(member))), None)
    if remote is None:
        return None
    return Outcome(
        state=JobState.FAILED,
        reason="LOOPBACK_ENDPOINT",
        message=(
            f"rank 0's node offered {endpoint.host} as MASTER_ADDR, which {remote.node}"
            f" at {peer_of(remote)} cannot reach: give that node's agent --local-addr"
        ),
    )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own; an unknown peer ("") counts as loopback."""
    return host in ("", "::1", "localhost") or host.startswith(("127.", "::ffff:127."))
