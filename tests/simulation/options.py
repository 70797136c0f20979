"""What a scenario is like: everything here is drawn from the seed before anything happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rallypoint.model import JobSpec
from rallypoint_coordinator.core.cluster import Retention
from simulation.world import World


class FaultKind(StrEnum):
    STREAM_RESET = "stream reset"
    SILENCE = "silence"
    SILENCE_UP = "silence towards the coordinator"
    SILENCE_DOWN = "silence from the coordinator"
    COORDINATOR_CRASH = "coordinator crash"
    COORDINATOR_CRASH_AT = "coordinator crash within a turn"
    COORDINATOR_HOST_LOST = "coordinator host lost"
    SLOW_DISK = "slow disk"
    AGENT_KILLED = "agent killed"
    AGENT_FROZEN = "agent frozen"
    AGENT_TERMINATED = "agent terminated"
    NODE_POWER_LOST = "node power lost"
    NODE_DOUBLED = "node name used twice"
    WATCHDOG = "watchdog news"


CALM_KINDS = frozenset(
    {
        FaultKind.STREAM_RESET,
        FaultKind.COORDINATOR_CRASH,
        FaultKind.COORDINATOR_CRASH_AT,
        FaultKind.WATCHDOG,
    }
)
"""Faults that training must not notice."""

CONTESTED_NAME_KINDS = frozenset({FaultKind.NODE_DOUBLED, FaultKind.SILENCE, FaultKind.AGENT_FROZEN})
"""Faults by which a node's name goes from one machine to another, and perhaps back."""

CALM_LEASE_MS = 15_000
CALM_DOWN_MAX_MS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    spec: JobSpec
    local_world_sizes: tuple[int, ...]
    """One for each node."""
    joins_at_ms: tuple[int, ...]
    """When each node's first agent starts."""
    chaos_ms: int
    fault_weights: Mapping[FaultKind, int]
    fault_gap_ms: int
    """The mean time between two faults."""
    delay_ms: tuple[int, int]
    main_lag_ms: int
    """How long an agent's main loop may take to look."""
    pumps: bool
    """Whether an agent goes on stepping its core while it ends workers."""
    failure_chance: float
    """That a round fails by itself."""
    collateral_chance: float
    """That a node fails because another one of its round did."""
    round_ms: tuple[int, int]
    stubborn_chance: float
    """That workers ignore SIGTERM."""
    unkillable_chance: float
    """That workers outlive SIGKILL for a while."""
    hang_chance: float
    """That workers never come to run."""
    restart_chance: float
    """That an agent that ended is started again."""
    relaunch_chance: float
    """That the whole job is submitted again once it was decided."""
    retention: Retention

    @property
    def is_calm(self) -> bool:
        """Whether no round may end for want of contact."""
        patience_ms = min(self.spec.coordinator_outage_ms, self.spec.exit_barrier_timeout_ms)
        patient = patience_ms >= 2 * CALM_DOWN_MAX_MS
        calm = self.spec.lease_ttl_ms >= CALM_LEASE_MS and set(self.fault_weights) <= CALM_KINDS
        return patient and calm and self.unkillable_chance == self.hang_chance == 0


def draw_options(world: World) -> Options:
    rng = world.rng
    nodes = _draw_nodes(world)
    chaos_ms = world.between(30_000, 300_000)
    late = rng.choice((0, 0, 0.2, 0.5))
    return Options(
        spec=_draw_spec(world, nodes),
        local_world_sizes=tuple(world.between(1, 4) for _ in range(nodes)),
        joins_at_ms=tuple(world.between(0, chaos_ms if world.chance(late) else 3_000) for _ in range(nodes)),
        chaos_ms=chaos_ms,
        fault_weights=_draw_faults(world),
        fault_gap_ms=rng.choice((500, 2_000, 5_000, 10_000, 20_000)),
        delay_ms=rng.choice(((0, 0), (1, 5), (1, 50), (20, 400))),
        main_lag_ms=rng.choice((0, 0, 0, 20, 1_000)),
        pumps=world.chance(0.7),
        failure_chance=rng.choice((0.0, 0.2, 0.5, 0.8)),
        collateral_chance=rng.choice((0.0, 0.5, 1.0)),
        round_ms=rng.choice(((500, 5_000), (3_000, 30_000), (20_000, 90_000))),
        stubborn_chance=rng.choice((0.0, 0.1, 0.5)),
        unkillable_chance=rng.choice((0.0, 0.0, 0.02, 0.2)),
        hang_chance=rng.choice((0.0, 0.0, 0.0, 0.05)),
        restart_chance=rng.choice((0.0, 0.7, 1.0, 1.0)),
        relaunch_chance=rng.choice((0.0, 0.8, 1.0)),
        retention=Retention(lives_max=rng.choice((0, 1, 1_000, 1_000))),
    )


def _draw_nodes(world: World) -> int:
    if world.chance(0.04):
        return world.between(17, 64)
    return world.rng.choice((1, 2, 2, 3, 3, 4, 5, 6, 8, world.between(1, 16)))


def _draw_spec(world: World, nodes: int) -> JobSpec:
    rng = world.rng
    min_nodes = world.between(max(1, nodes // 3), nodes)
    lease_ttl_ms = rng.choice((8_000, 10_000, 15_000, 20_000, 30_000))
    grace_max_ms = min(3_000, lease_ttl_ms // 2 - 1_000)
    return JobSpec(
        min_nodes=min_nodes,
        max_nodes=world.between(min_nodes, nodes + 1),
        max_restarts=rng.choice((0, 1, 2, 3, 5, 5)),
        lease_ttl_ms=lease_ttl_ms,
        fence_grace_ms=world.between(500, grace_max_ms),
        coordinator_outage_ms=rng.choice((0, 10_000, 60_000, 3_600_000)),
        join_timeout_ms=world.between(15_000, 90_000),
        last_call_timeout_ms=world.between(1_000, 10_000),
        shutdown_timeout_ms=rng.choice((500, 2_000, 5_000, 30_000)),
        exit_barrier_timeout_ms=world.between(10_000, 60_000),
    )


def _draw_faults(world: World) -> dict[FaultKind, int]:
    """A swarm: each scenario has some kinds of faults and not others."""
    theme = world.rng.random()
    if theme < 0.1:
        kinds = [kind for kind in FaultKind if kind in CALM_KINDS]
    elif theme < 0.2:
        kinds = [kind for kind in FaultKind if kind in CONTESTED_NAME_KINDS]
    else:
        kinds = [kind for kind in FaultKind if world.chance(0.5)]
    return {kind: world.between(1, 5) for kind in kinds}
