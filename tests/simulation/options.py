"""What a scenario is like: everything here is drawn from the seed before anything happens.

Each option draws from its own chance, by its own name: so a new one leaves every seed's other options as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rallypoint.model import JobSpec, ScaleUp
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.server.driver import DriverOptions
from rallypoint_coordinator.server.watch_log import LogBounds
from rallypoint_coordinator.server.watches import WatchOptions
from rallypoint_coordinator.store.journal import Bounds
from simulation.world import Chance, World


class FaultKind(StrEnum):
    STREAM_RESET = "stream reset"
    SILENCE = "silence"
    SILENCE_UP = "silence towards the coordinator"
    SILENCE_DOWN = "silence from the coordinator"
    COORDINATOR_CRASH = "coordinator crash"
    COORDINATOR_CRASH_AT = "coordinator crash within a turn"
    COORDINATOR_TERMINATED = "coordinator terminated"
    COORDINATOR_HOST_LOST = "coordinator host lost"
    SLOW_DISK = "slow disk"
    FULL_DISK = "full disk"
    UNREADABLE_DISK = "unreadable disk"
    APPEND_IN_DOUBT = "append in doubt"
    ANOTHER_WRITER = "another writer"
    LOST_JOURNAL = "lost journal"
    AGENT_KILLED = "agent killed"
    AGENT_FROZEN = "agent frozen"
    AGENT_TERMINATED = "agent terminated"
    KEEPER_KILLED = "keeper killed"
    AGENT_AND_KEEPER_KILLED = "agent and keeper killed"
    NODE_POWER_LOST = "node power lost"
    NODE_DOUBLED = "node name used twice"
    RUN_ANEW = "ended and run anew with another spec"
    PORTS_TAKEN = "no port to be had"
    WATCHDOG = "watchdog news"


class RequestKind(StrEnum):
    """What people ask for, at any time, of any name."""

    CANCEL = "cancel"
    RESTART = "restart"
    DRAIN = "drain"
    UPDATE = "update"
    HOLD = "hold"
    RELEASE = "release"
    LOOK = "look"


CALM_KINDS = frozenset(
    {
        FaultKind.STREAM_RESET,
        FaultKind.COORDINATOR_CRASH,
        FaultKind.COORDINATOR_CRASH_AT,
        FaultKind.COORDINATOR_TERMINATED,
        FaultKind.WATCHDOG,
    }
)
"""Faults that training must not notice."""

CONTESTED_NAME_KINDS = frozenset({FaultKind.NODE_DOUBLED, FaultKind.SILENCE, FaultKind.AGENT_FROZEN})
"""Faults by which a node's name goes from one machine to another, and perhaps back."""

DISK_KINDS = frozenset(
    {
        FaultKind.SLOW_DISK,
        FaultKind.FULL_DISK,
        FaultKind.UNREADABLE_DISK,
        FaultKind.APPEND_IN_DOUBT,
        FaultKind.ANOTHER_WRITER,
        FaultKind.COORDINATOR_CRASH_AT,
    }
)
"""Faults of the journal."""

LOST_JOURNAL_CHANCE = 0.06
"""Rare, since the oracles have to allow for more from then on."""

COMMON_CHANCE, RUN_ANEW_CHANCE = 0.5, 0.2
"""What is run anew so often seldom comes to its end."""

SHORTEST_LEASE_MS = 8_000
CALM_LEASE_MS = 15_000
CALM_DOWN_MAX_MS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """``joins_at_ms``: when its first agent starts."""

    local_world_size: int
    joins_at_ms: int
    node_rank: int | None
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    name: str
    spec: JobSpec
    nodes: tuple[NodeOptions, ...]
    failure_chance: float
    """That a round fails by itself."""
    bind_failure_chance: float
    """That a round's first worker finds its port taken."""
    collateral_chance: float
    """That a node fails because another one of its round did."""
    round_ms: tuple[int, int]
    relaunch_chance: float
    """That the whole job is submitted again once it was decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    jobs: tuple[JobOptions, ...]
    chaos_ms: int
    fault_weights: Mapping[FaultKind, int]
    fault_gap_ms: int
    """The mean time between two faults of one kind, divided by the kind's weight."""
    request_weights: Mapping[RequestKind, int]
    request_gap_ms: int
    delay_ms: tuple[int, int]
    main_lag_ms: int
    """How long an agent's main loop may take to look."""
    pumps: bool
    """Whether an agent goes on stepping its core while it ends workers."""
    stubborn_chance: float
    """That workers ignore SIGTERM."""
    unkillable_chance: float
    """That workers outlive SIGKILL for a while."""
    hang_chance: float
    """That workers never come to run."""
    restart_chance: float
    """That an agent that ended is started again."""
    driver: DriverOptions
    bounds: Bounds
    """Of one append."""
    watchers: int
    """Of each job."""
    strangers: int
    """So many agents of jobs that are not simulated are attached too, at most."""

    @property
    def forgets_events(self) -> bool:
        """Whether what was told can be too long ago to go on from."""
        driver = self.driver
        takes_snapshots = driver.snapshot_records < 10_000 and driver.keep_records < 1_000
        return takes_snapshots or driver.watches.log != LogBounds() or driver.retention != Retention()

    @property
    def is_calm(self) -> bool:
        """Whether no round may end for want of contact."""
        calm = set(self.fault_weights) <= CALM_KINDS and self.unkillable_chance == self.hang_chance == 0
        return calm and all(_is_patient(job.spec) for job in self.jobs)


def _is_patient(spec: JobSpec) -> bool:
    patience_ms = min(spec.coordinator_outage_ms, spec.exit_barrier_timeout_ms)
    return spec.lease_ttl_ms >= CALM_LEASE_MS and patience_ms >= 2 * CALM_DOWN_MAX_MS


class _Draw:
    """Gives each option its chance, under the option's name."""

    def __init__(self, world: World, about: str) -> None:
        self._world = world
        self._about = about

    def __getitem__(self, name: str) -> Chance:
        return self._world.chance(f"options/{self._about}/{name}")


def draw_options(world: World) -> Options:
    draw = _Draw(world, "all")
    chaos_ms = draw["chaos"].between(30_000, 300_000)
    return Options(
        jobs=_draw_jobs(world, draw, chaos_ms),
        chaos_ms=chaos_ms,
        fault_weights=_draw_faults(draw),
        fault_gap_ms=draw["fault gap"].choice((10_000, 40_000, 100_000, 200_000, 400_000)),
        request_weights=_draw_requests(draw),
        request_gap_ms=draw["request gap"].choice((5_000, 20_000, 60_000)),
        delay_ms=draw["delay"].choice(((0, 0), (1, 5), (1, 50), (20, 400))),
        main_lag_ms=draw["main lag"].choice((0, 0, 0, 20, 1_000)),
        pumps=draw["pumps"].happens(0.7),
        stubborn_chance=draw["stubborn"].choice((0.0, 0.1, 0.5)),
        unkillable_chance=draw["unkillable"].choice((0.0, 0.0, 0.02, 0.2)),
        hang_chance=draw["hang"].choice((0.0, 0.0, 0.0, 0.05)),
        restart_chance=draw["restart"].choice((0.0, 0.7, 1.0, 1.0)),
        driver=_draw_driver(draw),
        bounds=draw["bounds"].choice((Bounds(1_000, 1 << 20), Bounds(1_000, 1 << 20), Bounds(6, 4_096))),
        watchers=draw["watchers"].choice((0, 0, 1, 3)),
        strangers=draw["strangers"].choice((0, 0, 6_000, 30_000)),
    )


def _draw_driver(draw: _Draw) -> DriverOptions:
    return DriverOptions(
        turn_events_max=draw["turn events"].choice((1, 64, 512)),
        snapshot_records=draw["snapshot records"].choice((3, 20, 60, 10_000)),
        keep_records=draw["keep records"].choice((0, 5, 1_000)),
        retention=Retention(
            lives_max=draw["lives"].choice((0, 1, 1_000, 1_000)),
            nodes_max=draw["nodes of lives"].choice((5, 100_000, 100_000, 100_000)),
        ),
        watches=WatchOptions(
            at_once=draw["watches at once"].choice((1, 16)),
            log=draw["watch log"].choice((LogBounds(), LogBounds(), LogBounds(records=40), LogBounds(life_events=8))),
        ),
    )


# --- jobs


def _draw_jobs(world: World, draw: _Draw, chaos_ms: int) -> tuple[JobOptions, ...]:
    count = draw["jobs"].choice((1, 1, 1, 1, 1, 1, 2, 2, 3))
    return tuple(_draw_job(_Draw(world, f"job {number}"), number, count, chaos_ms) for number in range(count))


def _draw_job(draw: _Draw, number: int, jobs: int, chaos_ms: int) -> JobOptions:
    nodes = _draw_nodes(draw, chaos_ms, _draw_size(draw["nodes"], jobs))
    return JobOptions(
        name=f"job-{number}",
        spec=_draw_spec(draw, len(nodes)),
        nodes=nodes,
        failure_chance=draw["failure"].choice((0.0, 0.2, 0.5, 0.8)),
        bind_failure_chance=draw["bind failure"].choice((0.0, 0.0, 0.0, 0.2)),
        collateral_chance=draw["collateral"].choice((0.0, 0.5, 1.0)),
        round_ms=draw["round"].choice(((500, 5_000), (3_000, 30_000), (20_000, 90_000))),
        relaunch_chance=draw["relaunch"].choice((0.0, 0.8, 1.0)),
    )


def _draw_size(chance: Chance, jobs: int) -> int:
    if jobs > 1:
        return chance.between(1, 5)
    if chance.happens(0.04):
        return chance.between(17, 64)
    return chance.choice((1, 2, 2, 3, 3, 4, 5, 6, 8, chance.between(1, 16)))


def _draw_nodes(draw: _Draw, chaos_ms: int, count: int) -> tuple[NodeOptions, ...]:
    late = draw["late"].choice((0, 0, 0.2, 0.5))
    joins, sizes, roles = draw["joins"], draw["local world size"], draw["roles"]
    ranks: list[int | None] = [None] * count
    if draw["node ranks"].happens(0.3):
        ranks = draw["node rank"].sample(range(count), count)
    has_roles = roles.happens(0.2)
    return tuple(
        NodeOptions(
            local_world_size=sizes.between(1, 4),
            joins_at_ms=joins.between(0, chaos_ms if joins.happens(late) else 3_000),
            node_rank=ranks[number],
            role=roles.choice(("trainer", "reader")) if has_roles else "default",
        )
        for number in range(count)
    )


def _draw_spec(draw: _Draw, nodes: int) -> JobSpec:
    min_nodes = draw["min nodes"].between(max(1, nodes // 3), nodes)
    lease_ttl_ms = draw["lease"].choice((SHORTEST_LEASE_MS, 10_000, 15_000, 20_000, 30_000))
    grace_max_ms = min(3_000, lease_ttl_ms // 2 - 1_000)
    scale_up = draw["scale up"].choice((ScaleUp.IMMEDIATE, ScaleUp.IMMEDIATE, ScaleUp.ON_RESTART, ScaleUp.AFTER))
    return JobSpec(
        min_nodes=min_nodes,
        max_nodes=draw["max nodes"].between(min_nodes, nodes + 1),
        max_restarts=draw["max restarts"].choice((0, 1, 2, 3, 5, 5)),
        lease_ttl_ms=lease_ttl_ms,
        fence_grace_ms=draw["fence grace"].between(500, grace_max_ms),
        coordinator_outage_ms=draw["outage"].choice((0, 10_000, 60_000, 3_600_000)),
        join_timeout_ms=draw["join timeout"].between(15_000, 90_000),
        last_call_timeout_ms=draw["last call"].between(1_000, 10_000),
        shutdown_timeout_ms=draw["shutdown"].choice((500, 2_000, 5_000, 30_000)),
        exit_barrier_timeout_ms=draw["exit barrier"].between(10_000, 60_000),
        scale_up=scale_up,
        scale_up_delay_ms=draw["scale up delay"].between(500, 20_000) if scale_up is ScaleUp.AFTER else 0,
        rejoin_wait_ms=draw["rejoin wait"].choice((0, 0, 0, 3_000, 20_000)),
        no_restart_exit_codes=draw["no restart"].choice(((), (), (2,), (2, 17))),
    )


# --- what goes wrong, and what is asked


def _draw_faults(draw: _Draw) -> dict[FaultKind, int]:
    """A swarm: each scenario has some kinds of faults and not others."""
    theme = draw["theme"].random()
    themes = {0.1: CALM_KINDS, 0.2: CONTESTED_NAME_KINDS, 0.35: DISK_KINDS}
    chosen = next((kinds for below, kinds in themes.items() if theme < below), None)
    weights: dict[FaultKind, int] = {}
    if draw["journal lost"].happens(LOST_JOURNAL_CHANCE):
        weights[FaultKind.LOST_JOURNAL] = 1
    for kind in FaultKind:
        if kind is FaultKind.LOST_JOURNAL:
            continue
        chance = draw[f"fault {kind}"]
        probability = RUN_ANEW_CHANCE if kind is FaultKind.RUN_ANEW else COMMON_CHANCE
        if chance.happens(probability) if chosen is None else kind in chosen:
            weights[kind] = chance.between(1, 5)
    return weights


def _draw_requests(draw: _Draw) -> dict[RequestKind, int]:
    weights: dict[RequestKind, int] = {RequestKind.LOOK: 3}
    if draw["requests"].happens(0.4):
        chances = {
            RequestKind.CANCEL: 0.3,
            RequestKind.RESTART: 0.7,
            RequestKind.DRAIN: 0.7,
            RequestKind.UPDATE: 0.6,
            RequestKind.HOLD: 0.5,
            RequestKind.RELEASE: 0.5,
        }
        weights.update((kind, 1) for kind, chance in chances.items() if draw[f"request {kind}"].happens(chance))
    return weights
