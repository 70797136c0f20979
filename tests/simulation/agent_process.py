"""One agent process on simulated time: its main thread around the real core, its link, and its keeper.

The main thread blocks while it starts and ends workers, as the real one does. What happens meanwhile waits, or, if the
agent pumps, is stepped at once while the effects that would start or leave something wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import assert_never

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Assignment, Endpoint, WatchdogStatus, WorkerState
from rallypoint_agent.core.effects import (
    CloseStore,
    Effect,
    Finish,
    FinishKind,
    HoldPort,
    KillWorker,
    Leave,
    Reattach,
    Report,
    Say,
    SetFence,
    SetIdentity,
    StartWorkers,
    StopWorkers,
)
from rallypoint_agent.core.events import (
    ConnectionsRefused,
    DirectiveReceived,
    Event,
    GroupMonitored,
    LeaseRenewed,
    PortHeld,
    SignalReceived,
    TimeAdvanced,
    WatchdogChanged,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig
from rallypoint_coordinator.core.events import GoneReported
from simulation.keeper import CANNOT_START, Keeper
from simulation.keeper_group import Group
from simulation.link import Link
from simulation.network import Closing, Down
from simulation.oracle_agents import CONNECT_TIMEOUT_MS
from simulation.setting import Setting
from simulation.site import Site
from simulation.world import Action, Alarm

LEAVE_TIMEOUT_MS = 3_000
NOTICE_MS = (1, 250)
"""How long it takes the keeper to notice that its agent died."""
TIMERS_CLEARED_CHANCE = 0.2
"""That the watchdog has news just when the workers have succeeded: their timers are gone."""
NOT_THERE = frozenset({Reason.RECOVERING, Reason.FENCED, Reason.SHUTTING_DOWN})
"""Refusals that say no more than that the coordinator is not there at the moment."""
OBITUARY_RETRY_MS = (50, 1_000)


class Busy(StrEnum):
    STARTING = "starting"
    STOPPING = "stopping"
    LEAVING = "leaving"


class Ended(StrEnum):
    """How a process ended."""

    FINISHED = "finished"
    KILLED = "killed"
    POWER_LOST = "power lost"


class AgentProcess:
    """One incarnation. ``on_end`` is called once, when the process is no more."""

    def __init__(
        self,
        setting: Setting,
        site: Site,
        incarnation: str,
        on_end: Callable[[AgentProcess, Ended], None],
    ) -> None:
        self.name = self.incarnation = incarnation
        self.job = site.job.name
        self.node = site.node
        self.clock = site.clock
        self.path = site.path
        self.job_spec = site.job_spec
        self.node_spec = site.spec
        self.alive = True
        self.frozen = False
        self.finish: Finish | None = None
        self._world = setting.world
        self._network = setting.network
        self._oracles = setting.oracles
        self._options = setting.options
        self._chance = setting.world.chance(f"agent/{incarnation}")
        self._site = site
        self._on_end = on_end
        self._stalled: list[Action] = []
        self.core = AgentCore(
            AgentConfig(
                node=site.node,
                local_world_size=site.spec.local_world_size,
                job_spec=site.job_spec,
                connect_timeout_ms=CONNECT_TIMEOUT_MS,
                start_ms=site.clock.now_ms(),
            )
        )
        self.link = Link(setting.world, setting.network, self)
        self.keeper = Keeper(setting, site, incarnation, self._keeper_has_news)
        self._mailbox: deque[Event] = deque()
        self._signals: deque[int] = deque()
        self._effects: deque[Effect] = deque()
        self._busy: Busy | None = None
        self._stopping_round = -1
        self._watching = False
        self._turn_asked = False
        self._deadline_ms: int | None = None
        self._alarm = Alarm(setting.world, site.clock, partial(self.guard, self._ask_turn))
        self._obituary: SetIdentity | None = None

    # --- being a process

    def start(self) -> None:
        self._world.tell("=", self.name, "starts")
        self._oracles.agents.started(self.name, self.job, self.job_spec)
        self._oracles.leases.started(self.name, self.job_spec)
        self.link.start()
        self._step(TimeAdvanced())
        self._perform()

    def guard(self, action: Action) -> None:
        """Do it if the process can; when it is continued if it is frozen; never if it is gone."""
        if not self.alive:
            return
        if self.frozen:
            self._stalled.append(action)
        else:
            action()

    def after(self, delay_ms: int, action: Action) -> None:
        self._world.after(delay_ms, partial(self.guard, action))

    @property
    def explanation(self) -> str:
        """For whoever wonders why it is still there."""
        state = self.core.state
        attached = "attached" if state.attached else "not attached"
        blocked = f", {self._busy}" if self._busy is not None else ""
        return f"{self.name} {state.phase} in round {state.round}, {attached}{blocked}"

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            stalled, self._stalled = self._stalled, []
            for action in stalled:
                self.guard(action)

    def kill(self) -> None:
        """SIGKILL: the kernel ends the stream, the keeper notices."""
        self.link.close()
        self._end(Ended.KILLED)
        self._world.after(self._chance.between(*NOTICE_MS), partial(self.keeper.agent_died, self._write_obituary))

    def kill_with_keeper(self) -> None:
        """SIGKILL to both: the workers die with the keeper, and nobody tells."""
        self.link.close()
        self._end(Ended.KILLED)
        self.keeper.die()

    def lose_power(self) -> None:
        self.link.power_lost()
        self.keeper.lose_power()
        self._end(Ended.POWER_LOST)

    def signal(self, number: int) -> None:
        self._signals.append(number)
        self.guard(self._ask_turn)

    def _end(self, ended: Ended) -> None:
        self.alive = False
        self._world.tell("=", self.name, f"ended: {ended}")
        self._on_end(self, ended)

    # --- the obituary

    def _write_obituary(self) -> None:
        identity = self._obituary
        if identity is None or identity.lease_id == 0:
            return
        event = GoneReported(
            call=0,
            job=self.job,
            job_uid=identity.job_uid,
            lease_id=identity.lease_id,
            incarnation=self.incarnation,
            message="the agent is gone",
        )
        self._deliver_obituary(event, self._world.now_ms + self.job_spec.lease_ttl_ms)

    def _deliver_obituary(self, event: GoneReported, until_ms: int) -> None:
        if self._world.now_ms < until_ms:
            self._network.call(self.path, event, partial(self._obituary_answered, event, until_ms))

    def _obituary_answered(self, event: GoneReported, until_ms: int, answer: bool | Refusal | None) -> None:
        if answer is None or (isinstance(answer, Refusal) and not answer.final):
            retry_ms = self._chance.between(*OBITUARY_RETRY_MS)
            self._world.after(retry_ms, partial(self._deliver_obituary, event, until_ms))

    # --- what the link says

    def post(self, event: Event) -> None:
        """Put an event into the main thread's mailbox; one that only says more of the same replaces the last."""
        if self._mailbox and _replaces(event, self._mailbox[-1]):
            self._mailbox[-1] = event
        else:
            self._mailbox.append(event)
        self._ask_turn()

    def contacted(self, sent_ms: int) -> None:
        self._oracles.leases.renewed(self.name, sent_ms, self.keeper.group)

    def held(self, asked_ms: int) -> None:
        self._oracles.leases.held(self.name, asked_ms, self.keeper.group)

    def heard(self, message: Down) -> None:
        recovering = isinstance(message, Closing) and (message.refusal is None or message.refusal.reason in NOT_THERE)
        if not recovering:
            self._oracles.agents.heard(self.name)
            self._oracles.wire.delivered(self.node, self.incarnation, message)

    # --- the main thread

    def _keeper_has_news(self) -> None:
        self.guard(self._ask_turn)

    def _ask_turn(self) -> None:
        if self._turn_asked or not self.alive:
            return
        self._turn_asked = True
        self.after(self._chance.between(0, self._options.main_lag_ms), self._turn)

    def _turn(self) -> None:
        """Look at the workers, then at the rest, then act; while something blocks, as far as that allows."""
        self._turn_asked = False
        self._look_at_what_blocks()
        self._perform()
        if self._busy is None:
            self._monitor()
            self._take_in()
        elif self._options.pumps or self._busy is Busy.LEAVING:
            self._take_in()
            self._perform_what_can_be()
            self._look_at_what_blocks()
        self._perform()

    def _look_at_what_blocks(self) -> None:
        group = self.keeper.group
        if self._busy is Busy.STARTING:
            assert group is not None
            self._look_at_start(group)
        elif self._busy is Busy.STOPPING and (group is None or not group.live):
            self._busy, self._watching = None, False
            failures = group.take_failures() if group is not None else ()
            self._step(WorkersGone(self._stopping_round, failures))
        elif self._busy is Busy.STOPPING and group is not None and self.keeper.is_stuck(group):
            self._busy, self._watching, group.stuck = None, True, True
            self._oracles.workers.stuck(group)
            self._step(WorkersStuck(self._stopping_round, (100,)))
        elif self._busy is Busy.LEAVING and self.link.left:
            self._busy = None

    def _look_at_start(self, group: Group) -> None:
        if group.spawn_failed:
            self._busy = None
            self._step(GroupMonitored(group.round, WorkerState.FAILED, group.take_failures()))
        elif group.announced:
            self._busy, self._watching = None, True
            self._step(WorkersStarted(group.round, dict.fromkeys(range(self.node_spec.local_world_size), 100)))
        elif not group.live or any(isinstance(effect, StopWorkers) for effect in self._effects):
            self._busy, self._watching = None, True

    def _monitor(self) -> None:
        group = self.keeper.group
        if not self._watching or group is None:
            return
        if group.stuck:
            self._monitor_stuck(group)
            return
        if failures := group.take_own_failures():
            self._watching = False
            self._step(GroupMonitored(group.round, WorkerState.FAILED, failures))
        elif not group.live:
            self._watching = False
            self._step(WorkersGone(group.round, group.take_failures()))
        elif group.succeeded:
            self._watching = False
            self._step(GroupMonitored(group.round, WorkerState.SUCCEEDED))
            if self._chance.happens(TIMERS_CLEARED_CHANCE):
                self.post(WatchdogChanged(WatchdogStatus(enabled=True, last_expiry=f"at {self._world.now_ms}")))

    def _monitor_stuck(self, group: Group) -> None:
        if not group.live:
            self._watching = False
            self._step(WorkersGone(group.round, group.take_failures()))

    def _take_in(self) -> None:
        while self._signals:
            self._step(SignalReceived(self._signals.popleft()))
        while self._mailbox:
            self._step(self._mailbox.popleft())
        if self._deadline_ms is not None and self.clock.now_ms() >= self._deadline_ms:
            self._step(TimeAdvanced())

    def _step(self, event: Event) -> None:
        if not isinstance(event, LeaseRenewed | TimeAdvanced):
            self._world.tell("<", self.name, event)
        now_ms = self.clock.now_ms()
        output = self.core.step(event, now_ms)
        self._oracles.agents.stepped(self.name, event, output.effects, now_ms)
        self._effects.extend(output.effects)
        self._deadline_ms = output.next_deadline_ms
        self._alarm.set(self._deadline_ms)

    # --- effects

    def _perform(self) -> None:
        while self._effects and self._busy is None and self.alive:
            self._perform_one(self._effects.popleft())

    def _perform_what_can_be(self) -> None:
        while self._effects and self._can_perform_now(self._effects[0]):
            self._perform_one(self._effects.popleft())

    def _can_perform_now(self, effect: Effect) -> bool:
        if isinstance(effect, StopWorkers):
            return self._busy is Busy.STOPPING
        return not isinstance(effect, StartWorkers | Leave | Finish)

    def _perform_one(self, effect: Effect) -> None:
        match effect:
            case Report():
                self.link.report(effect.observed, can_wait=effect.can_wait)
            case SetFence():
                self.keeper.set_fence(effect.term_at_ms, effect.kill_at_ms)
            case SetIdentity():
                self.link.identity = (effect.cluster_id, effect.job_uid, effect.lease_id)
                self._obituary = effect
            case StartWorkers():
                self._start(effect.assignment)
            case CloseStore():
                pass
            case StopWorkers():
                self._stop(effect)
            case KillWorker():
                self.keeper.kill_worker(effect)
            case HoldPort():
                self._hold_port(effect)
            case Reattach():
                self.link.reattach()
            case Leave():
                self._oracles.agents.leaves(self.name, self.keeper.group)
                self._busy = Busy.LEAVING
                self.link.leave(effect)
                self.after(LEAVE_TIMEOUT_MS, self._left_long_enough)
                self._ask_turn()
            case Say():
                self._world.tell("=", self.name, effect.message)
            case Finish():
                self._finish(effect)
            case _:
                assert_never(effect)

    def _hold_port(self, effect: HoldPort) -> None:
        port = self._site.ports.hold()
        endpoint = Endpoint(self.path.address, port) if port is not None else None
        if endpoint is not None:
            self._oracles.journal.offered(self.incarnation, effect.offer_id, endpoint)
        self._step(PortHeld(effect.offer_id, endpoint))

    def _start(self, assignment: Assignment) -> None:
        self._world.tell(">", self.name, assignment)
        self._busy = Busy.STARTING
        self.keeper.spawn(
            Group(
                job_uid=self._obituary.job_uid if self._obituary else "",
                node=self.node,
                incarnation=self.incarnation,
                assignment=assignment,
                stubborn=self._chance.happens(self._options.stubborn_chance),
                unkillable=self._chance.happens(self._options.unkillable_chance),
                # What blocks without looking up is not helped by any deadline.
                hangs=self._options.pumps and self._chance.happens(self._options.hang_chance),
            )
        )

    def _stop(self, effect: StopWorkers) -> None:
        self._world.tell(">", self.name, effect)
        number = -1 if effect.signal is None else effect.signal
        if self._busy is None:
            self._busy, self._stopping_round = Busy.STOPPING, effect.round
        if self.keeper.group is not None and not self.keeper.group.announced:
            self._oracles.workers.never_started(self.keeper.group, CANNOT_START)
        self.keeper.stop(number, effect.grace_ms)
        self._ask_turn()

    def _left_long_enough(self) -> None:
        if self._busy is Busy.LEAVING:
            self._busy = None
            self._perform()

    def _finish(self, finish: Finish) -> None:
        self.finish = finish
        self._world.tell("=", self.name, finish)
        self._oracles.agents.finished(self.name, self.node, finish, self.keeper.group)
        self.link.close()
        self._end(Ended.FINISHED)
        if finish.kind is FinishKind.UNKILLABLE:
            self.keeper.agent_died(self._write_obituary)
        elif not self.link.released and self.core.state.lease.is_live(self.clock.now_ms()):
            self._write_obituary()


def _replaces(event: Event, before: Event) -> bool:
    match before, event:
        case (LeaseRenewed(), LeaseRenewed()) | (ConnectionsRefused(), ConnectionsRefused()):
            return True
        case DirectiveReceived(directive=old), DirectiveReceived(directive=new):
            return old.version < new.version
        case _:
            return False
