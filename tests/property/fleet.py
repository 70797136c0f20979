"""Agents that do as they are told, if they are asked to; what they do wrong is up to the test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from property.world import World
from rallypoint.model import (
    AgentPhase,
    Capability,
    Drain,
    Endpoint,
    EndpointOffer,
    Exit,
    Hold,
    JobSpec,
    Keep,
    NodeSpec,
    Observed,
    Run,
    Stop,
    WorkerFailure,
)
from support.coordinator_script import Agent

CLOCKS_MS = (None, 7_200_000, 1_000_000_000, 10_000)
"""How far the agents' clocks are ahead of the coordinator's."""

_ports = itertools.count(1)


@dataclass
class FleetAgent(Agent):
    """Holds a port of its own for every offer."""

    def next_offer(self) -> EndpointOffer:
        used = self.directive.consumed_offer_id if self.directive else 0
        held = self.observed.offer.offer_id if self.observed.offer else 0
        return EndpointOffer(max(used, held) + 1, Endpoint("10.0.0.1", next(_ports)))

    @property
    def is_attached(self) -> bool:
        world = self.script
        assert isinstance(world, World)
        return self.stream not in world.truth.leases.ended and self.stream in world.truth.leases.of_stream

    def obey(self) -> None:
        """What its directive asks for, done at once and reported."""
        action = self.directive.action if self.directive and self.is_attached else None
        match action:
            case Run():
                self.report(AgentPhase.RUNNING)
            case Keep():
                self.heartbeat()
            case Hold() | Stop():
                self.clear()
            case Exit() | Drain():
                self.leave()
            case _:
                self.attach()

    def succeed(self) -> None:
        if self.is_attached and self.directive and isinstance(self.directive.action, Run):
            self.report(AgentPhase.SUCCEEDED)

    def fail_with(self, failures: tuple[WorkerFailure, ...], phase: AgentPhase) -> None:
        """Workers of its newest round failed."""
        if self.is_attached and self.directive and isinstance(self.directive.action, Run):
            self.report(phase, *failures)

    def begin_anew(self) -> None:
        """It never heard of a life or a lease."""
        self.welcome = self.directive = None
        self.observed = Observed(offer=self.next_offer())
        self.attach()


class Fleet:
    """One agent a node; a later incarnation replaces it."""

    def __init__(
        self, world: World, spec: JobSpec, sizes: dict[str, int], lacking: dict[str, frozenset[Capability]]
    ) -> None:
        self.world = world
        self.spec = spec
        self._sizes = sizes
        self._lacking = lacking
        self._incarnations = itertools.count(1)
        self.agents: dict[str, FleetAgent] = {}
        for node in sizes:
            self.reborn(node)

    def __getitem__(self, node: str) -> FleetAgent:
        return self.agents[node]

    def reborn(self, node: str) -> FleetAgent:
        node_spec = NodeSpec(local_world_size=self._sizes[node], role=f"role-{self._sizes[node]}")
        agent = FleetAgent(self.world, node, f"{node}{next(self._incarnations)}", self.spec, node_spec)
        agent.capabilities -= self._lacking[node]
        agent.observed = replace(agent.observed, offer=agent.next_offer())
        agent.clock_ms, agent.lag_ms = CLOCKS_MS[len(self.agents) % len(CLOCKS_MS)], 20
        self.agents[node] = agent
        return agent

    def obey(self, node: str) -> None:
        """Who was told to go, or has no lease any more, comes back as another."""
        agent = self.agents[node]
        action = agent.directive.action if agent.directive else None
        agent.obey()
        if isinstance(action, Exit | Drain) or not agent.is_attached:
            self.reborn(node)
