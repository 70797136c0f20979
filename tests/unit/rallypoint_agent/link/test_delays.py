"""How long a link waits, by its configuration and what the coordinator asks for."""

from __future__ import annotations

import pytest

from rallypoint.model import Endpoint, JobSpec, NodeSpec
from rallypoint_agent.backoff import Backoff
from rallypoint_agent.link import delays
from rallypoint_agent.link.config import LinkConfig


def config(lease_ttl_ms: int = 30_000) -> LinkConfig:
    return LinkConfig(
        endpoints=(Endpoint("127.0.0.1", 1),),
        job="job",
        node="node",
        incarnation="incarnation",
        job_spec=JobSpec(lease_ttl_ms=lease_ttl_ms),
        node_spec=NodeSpec(),
        agent_version="1",
        capabilities=frozenset(),
        first_backoff_ms=100,
        longest_backoff_ms=5_000,
        first_knock_ms=100,
        welcome_timeout_ms=10_000,
        longest_welcome_timeout_ms=60_000,
    )


def longest_s(backoff: Backoff) -> float:
    """Of a hundred delays; each may be up to half shorter than it is meant."""
    return max(backoff.next_s() for _ in range(100))


@pytest.mark.parametrize(("lease_ttl_ms", "longest"), [(90_000, 5.0), (8_000, None)])
def test_tries_to_attach_come_within_the_heartbeat_interval(lease_ttl_ms: int, longest: float | None) -> None:
    policy = config(lease_ttl_ms)
    longest = longest or policy.job_spec.heartbeat_interval_ms / 1000
    assert longest * 0.9 < longest_s(delays.between_attaches(policy)) <= longest


@pytest.mark.parametrize(("interval_ms", "longest"), [(500, 0.1), (20_000, 2.0)])
def test_knocks_are_rarer_the_rarer_the_heartbeats(interval_ms: int, longest: float) -> None:
    knocks = delays.between_knocks(config(), interval_ms)
    assert 0.05 <= knocks.next_s() <= 0.1
    assert longest * 0.9 < longest_s(knocks) <= longest


def test_a_busy_coordinator_is_waited_for_longer_up_to_a_limit() -> None:
    asked = [10_000]
    for _ in range(4):
        asked.append(delays.longer_welcome_timeout_ms(config(), asked[-1]))
    assert asked == [10_000, 20_000, 40_000, 60_000, 60_000]
    assert delays.longer_welcome_timeout_ms(config(), 90_000) == 90_000


def test_first_heartbeats_come_within_the_interval_and_are_spread() -> None:
    first = [delays.to_first_beat_s(10.0) for _ in range(200)]
    assert 5.0 <= min(first) < 6.0
    assert 9.0 < max(first) <= 10.0
