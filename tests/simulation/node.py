"""A node: one agent process after another under one name, and whoever starts them again."""

from __future__ import annotations

import itertools

from rallypoint.model import NodeSpec
from rallypoint_agent.core.effects import FinishKind
from simulation.agent_process import AgentProcess, Ended
from simulation.options import JobOptions, NodeOptions
from simulation.setting import Setting
from simulation.site import Ports, Site
from simulation.world import Clock

LIVES_MAX = 8
"""So often a decided job is submitted again from one node."""

RESTART_MS = (300, 20_000)
WALL_SKEW_MAX_MS = 2_000


class Node:
    """``process`` None: no agent runs here now. ``copy``: not 0 for another machine under the same name."""

    def __init__(self, setting: Setting, job: int, number: int, ports: itertools.count[int], copy: int = 0) -> None:
        self.name = f"node-{number}"
        self.path = setting.network.new_path(f"10.{copy}.{job}.{number}")
        self.ports = Ports(ports)
        self.process: AgentProcess | None = None
        self.starting = 0
        """So many starts are on their way."""
        self._setting = setting
        self._job = job
        self._number = number
        self._copy = copy
        self._numbers = ports
        self.incarnations = 0
        self._decided = 0
        self._boots = 0
        self._machine = f"{self.job.name}/{self.name}" + "'" * copy
        self._chance = setting.world.chance(f"node/{self._machine}")
        self._wall_skew_ms = self._chance.between(-WALL_SKEW_MAX_MS, WALL_SKEW_MAX_MS)
        self._clock = self._boot_clock()
        self._is_powered = True

    @property
    def job(self) -> JobOptions:
        return self._setting.options.jobs[self._job]

    @property
    def options(self) -> NodeOptions:
        return self.job.nodes[self._number]

    def start_after(self, delay_ms: int) -> None:
        self.starting += 1
        self._setting.world.after(delay_ms, self._start)

    def _start(self) -> None:
        self.starting -= 1
        if self.process is not None or not self._is_powered:
            return
        options = self.options
        site = Site(
            job=self.job,
            node=self.name,
            job_spec=self._setting.specs.get(self.job.name, self.job.spec),
            spec=NodeSpec(local_world_size=options.local_world_size, node_rank=options.node_rank, role=options.role),
            path=self.path,
            clock=self._clock,
            wall_skew_ms=self._wall_skew_ms,
            ports=self.ports,
        )
        self.process = AgentProcess(self._setting, site, self._next_incarnation(), self._ended)
        self.process.start()

    def double(self, copy: int) -> Node:
        """Another machine that goes by this one's name."""
        return Node(self._setting, self._job, self._number, self._numbers, copy)

    def _next_incarnation(self) -> str:
        self.incarnations += 1
        return f"{self._machine}.{self.incarnations}"

    def _boot_clock(self) -> Clock:
        self._boots += 1
        return Clock(self._setting.world, f"{self._machine}/{self._boots}")

    def lose_power(self, boots_after_ms: int | None) -> None:
        """Everything on it is gone at once. None: it never comes back."""
        if self.process is not None:
            self.process.lose_power()
        self._is_powered = False
        if boots_after_ms is not None:
            self.starting += 1
            self._setting.world.after(boots_after_ms, self._boot)

    def _boot(self) -> None:
        self._is_powered = True
        self._clock = self._boot_clock()
        self._start()

    def _ended(self, process: AgentProcess, ended: Ended) -> None:
        self.process = None
        if ended is not Ended.POWER_LOST and not self._setting.workload.healed and self._is_started_again(process):
            self.start_after(self._chance.between(*RESTART_MS))

    def _is_started_again(self, process: AgentProcess) -> bool:
        if process.finish is None or process.finish.kind is not FinishKind.DECIDED:
            return self._chance.happens(self._setting.options.restart_chance)
        self._decided += 1
        return self._decided < LIVES_MAX and self._chance.happens(self.job.relaunch_chance)
