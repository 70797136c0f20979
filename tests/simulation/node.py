"""A node: one agent process after another under one name, and whoever starts them again."""

from __future__ import annotations

import itertools
from functools import partial

from rallypoint_agent.core.effects import FinishKind
from simulation.agent_process import AgentProcess, Ended, Site
from simulation.setting import Setting
from simulation.world import Clock

LIVES_MAX = 8
"""So often a decided job is submitted again from one node."""

RESTART_MS = (300, 20_000)


class Node:
    """``process`` None: no agent runs here now. ``copy``: not 0 for another machine under the same name."""

    def __init__(self, setting: Setting, number: int, ports: itertools.count[int], copy: int = 0) -> None:
        self.name = f"node-{number}"
        self.path = setting.network.new_path(f"10.{copy}.0.{number}")
        self.process: AgentProcess | None = None
        self.starting = 0
        """So many starts are on their way."""
        self._setting = setting
        self._number = number
        self._copy = copy
        self._ports = ports
        self.incarnations = 0
        self._decided = 0
        self._clock = Clock(setting.world)
        self._is_powered = True

    def start_after(self, delay_ms: int) -> None:
        self.starting += 1
        self._setting.world.after(delay_ms, self._start)

    def _start(self) -> None:
        self.starting -= 1
        if self.process is not None or not self._is_powered:
            return
        site = Site(
            node=self.name,
            path=self.path,
            clock=self._clock,
            local_world_size=self._setting.options.local_world_sizes[self._number],
            ports=partial(next, self._ports),
        )
        self.process = AgentProcess(self._setting, site, self._next_incarnation(), self._ended)
        self.process.start()

    def double(self, copy: int) -> Node:
        """Another machine that goes by this one's name."""
        return Node(self._setting, self._number, self._ports, copy)

    def _next_incarnation(self) -> str:
        self.incarnations += 1
        machine = self.name + "'" * self._copy
        return f"{machine}.{self.incarnations}"

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
        self._clock = Clock(self._setting.world)
        self._start()

    def _ended(self, process: AgentProcess, ended: Ended) -> None:
        self.process = None
        if ended is not Ended.POWER_LOST and not self._setting.workload.healed and self._is_started_again(process):
            self.start_after(self._setting.world.between(*RESTART_MS))

    def _is_started_again(self, process: AgentProcess) -> bool:
        world, options = self._setting.world, self._setting.options
        if process.finish is None or process.finish.kind is not FinishKind.DECIDED:
            return world.chance(options.restart_chance)
        self._decided += 1
        return self._decided < LIVES_MAX and world.chance(options.relaunch_chance)
