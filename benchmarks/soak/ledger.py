"""What each fault must cost, and whether it did. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NONE = range(1)
ONE = range(1, 2)
SOME = range(1, 4)


@dataclass(frozen=True)
class Price:
    """``charged``: restarts. ``rounds``: how many may end because of it. ``causes``: the words for what ended them."""

    charged: int
    rounds: range
    causes: frozenset[str]


@dataclass(frozen=True)
class Ended:
    """One round that ended, as GetJob tells it."""

    round: int
    cause: str
    restart_spent: bool


@dataclass(frozen=True)
class Rest:
    """A job at rest: every node takes part and is attached, every worker runs."""

    uid: str
    round: int
    restart_count: int
    pids: dict[int, int]
    """The workers', by rank."""
    nodes: dict[int, str]
    """Where they run."""
    ended: tuple[Ended, ...]
    """The newest rounds that ended."""


def overcharged(price: Price, before: Rest, after: Rest) -> list[str]:
    """Every way in which what came of a fault is not its price."""
    return list(_differences(price, before, after))


def _differences(price: Price, before: Rest, after: Rest) -> Iterable[str]:
    if after.uid != before.uid:
        yield f"another life: {before.uid} became {after.uid}"
    spent, rounds = after.restart_count - before.restart_count, after.round - before.round
    if spent != price.charged:
        yield f"{spent} restarts were spent instead of {price.charged}"
    if rounds not in price.rounds:
        yield f"{rounds} rounds ended, not {_as_text(price.rounds)}"
    if not rounds and after.pids != before.pids:
        yield f"workers changed within round {after.round}: {before.pids} became {after.pids}"
    since = [change for change in after.ended if change.round >= before.round]
    if len(since) != rounds:
        yield f"{rounds} rounds ended, and {len(since)} are told of: {since}"
    if unexplained := [change for change in since if change.cause not in price.causes]:
        yield f"not caused by it: {unexplained}"
    if sum(change.restart_spent for change in since) != spent:
        yield f"{spent} restarts were spent, and what is told is {since}"


def _as_text(rounds: range) -> str:
    return str(rounds[0]) if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
