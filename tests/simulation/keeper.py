"""The keeper and the workers of one agent process: what is really alive, whatever the cores believe."""

from __future__ import annotations

import signal
from functools import partial

from rallypoint.model import KILL_PATIENCE_MS, WorkerFailure
from rallypoint_agent.core.effects import KillWorker
from simulation.keeper_group import Group
from simulation.setting import Setting
from simulation.site import Site
from simulation.workload import Fate
from simulation.world import Action, Alarm

KILL_MS = (5, 250)
"""How long after SIGKILL the last process of a tree is gone."""

CANNOT_START_CHANCE = 0.01
CANNOT_START = 127

UNKILLABLE_MS = (5_000, 120_000)

DEATH_MS = (1, 50)
"""How long after the death of their keeper the last worker is dead."""

TERM_MS = (10, 400)
"""How long willing workers take to end after SIGTERM."""


class Keeper:
    """Outlives its agent process. ``tell`` wakes the agent's main thread."""

    def __init__(self, setting: Setting, site: Site, incarnation: str, tell: Action) -> None:
        self.group: Group | None = None
        self._world = setting.world
        self._chance = setting.world.chance(f"keeper/{incarnation}")
        self._options = site.job
        self._workers = setting.oracles.workers
        self._leases = setting.oracles.leases
        self._workload = setting.workload
        self._clock = site.clock
        self._wall_skew_ms = site.wall_skew_ms
        self._tell = tell
        self._fence: tuple[int, int] | None = None
        self._alarm = Alarm(setting.world, site.clock, self._strike)
        self._all_gone: Action | None = None

    # --- what the agent asks for

    def set_fence(self, term_at_ms: int, kill_at_ms: int) -> None:
        self._fence = (term_at_ms, kill_at_ms)
        self._alarm.set(term_at_ms)

    def spawn(self, group: Group) -> None:
        """Start the workers, unless the fence forbids it: then they are gone at once."""
        self.group = group
        if self._fence is not None and self._clock.now_ms() >= self._fence[0]:
            group.live, group.fenced = False, True
            self._world.after(0, self._tell)
            return
        self._workers.started(group)
        delay_ms = self._chance.between(5, 3_000 if self._chance.happens(0.05) else 200)
        if not group.hangs:
            self._world.after(delay_ms, partial(self._announce, group))
        if self._fence is not None:
            self._alarm.set(self._fence[0])

    def stop(self, number: int, grace_ms: int) -> None:
        """End the workers; a stop that is under way is only ever made sooner."""
        group = self.group
        if group is None or not group.live:
            self._world.after(0, self._tell)
            return
        self._tear_down(group, 0 if number == signal.SIGKILL else grace_ms)

    def kill_worker(self, effect: KillWorker) -> None:
        """End one worker, if it has not ended yet."""
        group = self.group
        if group is not None and group.round == effect.round and group.announced:
            self._fulfil(group, Fate(0, -effect.signal, effect.reason))

    # --- the end of the agent

    def agent_died(self, then: Action) -> None:
        """Kill everything, then call."""
        self._all_gone = then
        if self.group is not None and self.group.live:
            self._tear_down(self.group, 0)
        else:
            self._world.after(0, then)

    # --- its own end

    def die(self) -> None:
        """SIGKILL: the workers die with it. Their agent, if it lives, notices and has another keeper at once."""
        group = self.group
        if group is not None and group.live:
            takes_ms = UNKILLABLE_MS if group.unkillable else DEATH_MS
            self._world.after(self._chance.between(*takes_ms), partial(self._die_with_it, group))

    def _die_with_it(self, group: Group) -> None:
        if not group.live:
            return
        if not group.succeeded and not group.failed:
            group.failed = True
            group.untold.append(self._failure(group, -signal.SIGKILL, "the keeper died"))
            if not group.stop_sent:
                self._workers.failed(group, -signal.SIGKILL)
        self._end(group)

    def lose_power(self) -> None:
        if self.group is not None and self.group.live:
            self._end(self.group)

    # --- what happens to a group

    def _announce(self, group: Group) -> None:
        if not group.live or group.kill_at_ms is not None:
            return
        if self._chance.happens(CANNOT_START_CHANCE):
            self._cannot_start(group)
            return
        group.announced = True
        fate = self._workload.fate(self._options, group.job_uid, group.round, group.assignment.group_rank)
        self._world.after(fate.after_ms, partial(self._fulfil, group, fate))
        self._tell()

    def _cannot_start(self, group: Group) -> None:
        group.spawn_failed = True
        group.untold.append(self._failure(group, CANNOT_START, "no such program"))
        self._workers.failed(group, CANNOT_START)
        self._end(group)

    def _fulfil(self, group: Group, fate: Fate) -> None:
        if not group.live or group.failed or group.succeeded:
            return
        if fate.exit_code == 0:
            self._succeed(group)
        else:
            group.failed = True
            group.untold.append(self._failure(group, fate.exit_code, fate.message))
            if not group.stop_sent:
                self._workers.failed(group, fate.exit_code)
        self._tell()

    def _succeed(self, group: Group) -> None:
        if not group.stop_sent and not group.untold:
            group.succeeded = True
            self._workers.succeeded(group)

    def _failure(self, group: Group, exit_code: int, message: str) -> WorkerFailure:
        self._workers.exited(group, self._world.now_ms)
        return WorkerFailure(
            node=group.node,
            local_rank=0,
            rank=group.assignment.first_rank,
            pid=100,
            exit_code=exit_code,
            message=message,
            traceback=message,
            fail_time_ms=self._world.wall_ms + self._wall_skew_ms,
            after_stop=group.stop_sent,
            fail_clock_ms=self._clock.now_ms(),
        )

    def _strike(self) -> None:
        """The fence: once it struck it is not taken back."""
        group = self.group
        if self._fence is None or group is None or not group.live or group.fenced:
            return
        self._world.tell("=", group.incarnation, f"the fence strikes round {group.round}")
        self._leases.strikes(group.incarnation, self._clock.now_ms())
        group.fenced = True
        self._tear_down(group, self._clock.delay_until(self._fence[1]))

    def _tear_down(self, group: Group, grace_ms: int) -> None:
        if not group.stop_sent:
            group.stop_sent = True
            if group.announced and not group.stubborn and not group.unkillable:
                self._world.after(self._chance.between(*TERM_MS), partial(self._end_by_term, group))
        kill_at_ms = self._world.now_ms + (grace_ms if group.announced else 0)
        if group.kill_at_ms is None or kill_at_ms < group.kill_at_ms:
            group.kill_at_ms = kill_at_ms
            takes_ms = self._chance.between(*(UNKILLABLE_MS if group.unkillable else KILL_MS))
            delay_ms = kill_at_ms - self._world.now_ms + takes_ms
            self._world.after(delay_ms, partial(self._end, group))
            if group.unkillable:
                self._world.after(kill_at_ms - self._world.now_ms + KILL_PATIENCE_MS, self._tell)

    def is_stuck(self, group: Group) -> bool:
        """Whether SIGKILL has not ended it, for so long that it is told."""
        killed_at_ms = group.kill_at_ms
        return group.live and killed_at_ms is not None and self._world.now_ms >= killed_at_ms + KILL_PATIENCE_MS

    def _end_by_term(self, group: Group) -> None:
        if group.live:
            if not group.succeeded and not group.failed:
                group.untold.append(self._failure(group, -signal.SIGTERM, ""))
            self._end(group)

    def _end(self, group: Group) -> None:
        if not group.live:
            return
        group.live = False
        self._workers.gone(group)
        if self._all_gone is not None:
            self._all_gone()
        self._tell()
