"""How long a link waits, and for what: made of its configuration and of what the coordinator asks for.

``rng``: who may choose; by default each wait is different from all others.
"""

from __future__ import annotations

import random

from rallypoint_agent.backoff import Backoff
from rallypoint_agent.link.config import LinkConfig

_KNOCK_GROWTH = 1.1
_KNOCKS_PER_HEARTBEAT = 10
"""At the slowest. The coordinator issues the interval, so the agents of a large fleet knock more rarely."""

_FIRST_BEAT = (0.5, 1.0)
"""Of the interval. The Welcome has renewed the lease, and may have come while a whole fleet waits for its own."""


def between_attaches(config: LinkConfig, rng: random.Random | None = None) -> Backoff:
    """From one try to attach to the next, while somebody is there or nobody can tell."""
    # A refusal holds the workers only if the next probe comes well before the fence that this one has moved.
    longest_ms = min(config.longest_backoff_ms, config.job_spec.heartbeat_interval_ms)
    return Backoff(config.first_backoff_ms / 1000, longest_ms / 1000, rng=rng)


def between_knocks(config: LinkConfig, heartbeat_interval_ms: int, rng: random.Random | None = None) -> Backoff:
    """From one probe to the next, while every endpoint refuses. ``heartbeat_interval_ms``: of the last Welcome."""
    first_ms = config.first_knock_ms
    longest_ms = max(first_ms, heartbeat_interval_ms // _KNOCKS_PER_HEARTBEAT)
    return Backoff(first_ms / 1000, longest_ms / 1000, _KNOCK_GROWTH, rng)


def longer_welcome_timeout_ms(config: LinkConfig, timeout_ms: int) -> int:
    """How long to wait for a Welcome once one that has our Hello did not send it within ``timeout_ms``.

    Else one that needs longer for a whole fleet is slowed down further, by those who gave up and come again.
    """
    return min(2 * timeout_ms, max(config.longest_welcome_timeout_ms, timeout_ms))


def with_hello_said_s(timeout_s: float) -> float:
    """How long an agent without a lease waits for its Welcome from when its Hello is out."""
    return 2 * timeout_s


def to_first_beat_s(interval_s: float, rng: random.Random | None = None) -> float:
    """From the Welcome on; random, so that who were welcomed together do not beat together for ever."""
    return interval_s * (rng or random.Random()).uniform(*_FIRST_BEAT)
