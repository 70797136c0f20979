from __future__ import annotations

import pytest

from rallypoint.model import Capability, Endpoint, JobSpec, NodeSpec
from rallypoint_coordinator.core.places import places_of
from rallypoint_coordinator.core.records import Seat
from rallypoint_coordinator.core.rendezvous import Form, GiveUp, Wait, choose, consider, is_loopback
from rallypoint_coordinator.core.state import Facts, Member, Round, Watch


def member(node: str, order: int, node_rank: int | None = None) -> Member:
    return Member(
        node=node,
        incarnation="i",
        lease_id=order,
        spec=NodeSpec(node_rank=node_rank),
        capabilities=frozenset(),
        agent_version="",
    )


def facts(earlier: str = "", *, low: int = 1, high: int = 3, live: int = 0) -> Facts:
    made = Facts(job="j", uid="u", spec=JobSpec(min_nodes=low, max_nodes=high), created_wall_ms=0)
    made.members = {str(index): member(str(index), index) for index in range(live)}
    if earlier:
        seats = tuple(Seat(node=node, lease_id=0, local_world_size=1, role="r") for node in earlier)
        made.round = Round(
            number=0,
            places=places_of(seats),
            world_size=len(seats),
            endpoint=Endpoint("h", 1),
            offer_id=1,
            restart_count=0,
        )
    return made


@pytest.mark.parametrize(
    ("earlier", "ready", "chosen"),
    [
        ("", "ab", "ab"),
        ("", "ba", "ba"),
        ("abc", "cab", "abc"),
        ("abc", "acd", "adc"),
        ("abc", "cd", "dc"),
        ("abc", "ac", "ac"),
        ("ab", "abz", "abz"),
        ("abc", "abcd", "abc"),
        ("abc", "defg", "def"),
    ],
)
def test_who_had_a_place_keeps_it(earlier: str, ready: str, chosen: str) -> None:
    members = [member(node, order) for order, node in enumerate(ready)]
    assert "".join(m.node for m in choose(facts(earlier), members)) == chosen


@pytest.mark.parametrize(
    ("earlier", "ready", "holders", "chosen"),
    [
        ("", "abc", "bc", "bca"),
        ("", "abc", "", "abc"),
        ("", "abcd", "d", "abc"),
        ("ba", "ab", "b", "ba"),
        ("b", "ab", "b", "ba"),
    ],
)
def test_who_hold_their_ports_come_first(earlier: str, ready: str, holders: str, chosen: str) -> None:
    members = [member(node, order) for order, node in enumerate(ready)]
    for one in members:
        one.capabilities = frozenset({Capability.HOLDS_PORT} if one.node in holders else ())
    assert "".join(m.node for m in choose(facts(earlier), members)) == chosen


def test_newcomers_come_by_node_rank_then_by_joining() -> None:
    members = [member("a", 1), member("b", 2, node_rank=1), member("c", 3, node_rank=0)]
    assert "".join(m.node for m in choose(facts(), members)) == "cba"


@pytest.mark.parametrize(
    ("earlier", "ready", "live", "now_ms", "verdict"),
    [
        ("", 3, 3, 0, Form),
        ("", 1, 1, 0, Wait),
        ("", 1, 1, 30_000, Form),
        ("ab", 2, 2, 0, Form),
        ("ab", 1, 2, 0, Wait),
        ("ab", 1, 2, 30_000, Form),
        ("", 0, 0, 0, Wait),
        ("", 0, 0, 600_000, GiveUp),
    ],
)
def test_when_to_form(earlier: str, ready: int, live: int, now_ms: int, verdict: type) -> None:
    expected = set(range(ready, live)) if earlier else set()
    watch = Watch(ready=set(range(ready)), expected=expected, last_call_ends_ms=30_000 if ready else None)
    assert isinstance(consider(facts(earlier, live=live), watch, now_ms), verdict)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("node-1", False), ("", True)],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
