"""Intervals grow with the fleet, and no lease is the worse for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import JobSpec, Welcome
from rallypoint_coordinator.core.effects import Output, SendDirective, SendWelcome
from rallypoint_coordinator.core.explain import as_of
from rallypoint_coordinator.core.membership import SUSPECT_MARGIN_MS, is_suspect
from rallypoint_coordinator.core.pacing import heartbeat_interval_ms
from support.coordinator_script import Script

SPEC = JobSpec(min_nodes=2, max_nodes=2)
LONGEST_MS = (30_000 - 3_000 - 1_000) // 3


@pytest.mark.parametrize(
    ("fleet", "spec", "expected_ms"),
    [
        (1, SPEC, 5_000),
        (5_000, SPEC, 5_000),
        (7_000, SPEC, 7_000),
        (100_000, SPEC, LONGEST_MS),
        (7_000, replace(SPEC, lease_ttl_ms=60_000), 10_000),
        (40_000, replace(SPEC, lease_ttl_ms=600_000), 100_000),
        (150_000, replace(SPEC, lease_ttl_ms=600_000), 150_000),
        (1, replace(SPEC, max_nodes=7_000), 7_000),
        (100_000, replace(SPEC, lease_ttl_ms=8_000), 1_333),
    ],
    ids=[
        "alone",
        "as many as the shortest allows",
        "more",
        "as rarely as the lease allows",
        "a longer lease",
        "a long lease",
        "a long lease, a fleet that is too large for it",
        "the first of a large job",
        "the shortest lease leaves no choice",
    ],
)
def test_intervals_grow_with_the_fleet_as_far_as_the_lease_allows(fleet: int, spec: JobSpec, expected_ms: int) -> None:
    assert heartbeat_interval_ms(spec, fleet) == expected_ms


def test_it_is_issued_anew_with_each_attach() -> None:
    script = Script()
    agent = script.agent("a", SPEC)
    assert welcome_of(agent.attach()).heartbeat_interval_ms == 5_000
    script.fleet = 7_000
    assert welcome_of(agent.attach()).heartbeat_interval_ms == 7_000


def test_an_agent_is_suspect_by_what_it_was_issued() -> None:
    script = Script()
    often, rarely = script.agent("a", SPEC), script.agent("b", SPEC)
    often.attach()
    script.fleet = 7_000
    rarely.attach()
    presences = {presence.node: presence for presence in script.life.presences.values()}
    for node, interval_ms in {"a": 5_000, "b": 7_000}.items():
        well_until_ms = script.now_ms + 2 * interval_ms + SUSPECT_MARGIN_MS
        assert not is_suspect(presences[node], well_until_ms)
        assert is_suspect(presences[node], well_until_ms + 1)


def test_who_may_be_silent_for_longer_hides_nobody() -> None:
    """Looked for is who was silent for longest: that one is well, and the next one is not."""
    script = Script()
    rarely, often = script.agent("a", SPEC), script.agent("b", SPEC)
    script.fleet = 7_000
    rarely.attach()
    script.fleet = 1
    often.attach()
    for agent in (rarely, often):
        agent.run()
    message, _ = as_of(script.life, script.now_ms + 12_000)
    assert "b has said nothing for 12 s" in message


def test_a_directive_is_repeated_only_after_the_interval_that_was_issued() -> None:
    script = Script()
    script.fleet = 7_000
    agent = script.agent("a", SPEC)
    agent.attach()
    script.now_ms += 7_000
    assert not repeats_directive(agent.heartbeat())
    script.now_ms += 1
    assert repeats_directive(agent.heartbeat())


def welcome_of(out: Output) -> Welcome:
    return next(effect.welcome for effect in out.effects if isinstance(effect, SendWelcome))


def repeats_directive(out: Output) -> bool:
    return any(isinstance(effect, SendDirective) for effect in out.effects)
