"""One agent of the fleet: the real core, around it as little of a link, a keeper and workers as it needs.

The link numbers messages, reads the clock and renews the lease as the real one does; workers start and end at once.
"""

from __future__ import annotations

import signal
from collections import deque
from functools import partial
from typing import Protocol, assert_never

from rallypoint.model import (
    NO_VERSION,
    AgentPhase,
    Capability,
    ClockReading,
    Directive,
    Endpoint,
    Hello,
    JobSpec,
    NodeSpec,
    Observed,
    Welcome,
    WorkerFailure,
    WorkerState,
)
from rallypoint.wire import Ack, AgentMessage, CoordinatorMessage, Goodbye, Heartbeat
from rallypoint_agent.core.effects import (
    CloseStore,
    Effect,
    Finish,
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
    Attached,
    Detached,
    DirectiveReceived,
    Event,
    GroupMonitored,
    LeaseRenewed,
    PortHeld,
    SignalReceived,
    TimeAdvanced,
    WorkersGone,
    WorkersStarted,
)
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig
from simulated_fleet.timeline import Timeline

PORTS = range(29_500, 65_000)


class Line(Protocol):
    """The coordinator, as an agent sees it."""

    def open(self, agent: Agent) -> int: ...
    def send(
        self, stream: int, message: AgentMessage, lease_id: int, seq: int, clock: ClockReading, *, is_beat: bool
    ) -> None: ...


class Agent:
    """``number`` gives it its name and address."""

    def __init__(self, number: int, job: str, spec: JobSpec, node: NodeSpec, line: Line, timeline: Timeline) -> None:
        self.node = f"node-{number:06}"
        self.job = job
        self.incarnation = f"{number:032x}"
        self.address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        self._spec, self._node_spec = spec, node
        self._line, self._timeline = line, timeline
        self.core = AgentCore(
            AgentConfig(
                node=self.node,
                local_world_size=node.local_world_size,
                job_spec=spec,
                connect_timeout_ms=600_000,
                start_ms=timeline.now_ms,
            )
        )
        self.stream = 0
        self.finished = False
        self.welcome: Welcome | None = None
        self._effects: deque[Effect] = deque()
        self._deadline_ms: int | None = None
        self._alarm_ms: int | None = None
        self._identity = SetIdentity("", "", 0)
        self._highest_version = NO_VERSION
        self._observed = self._reported = Observed()
        self._is_urgent = False
        """Whether something that cannot wait is still to be said."""
        self._attach_seq = self._seq = 0
        self._acked = (0, 0)
        self._unacked: deque[tuple[int, int]] = deque()
        self._goodbye: Goodbye | None = None

    # --- what happens to it

    def start(self) -> None:
        self._step(TimeAdvanced())
        self.attach()

    def attach(self) -> None:
        """Open a stream and say who it is."""
        self._attach_seq += 1
        self.stream = self._line.open(self)
        self._seq, self._acked, self.welcome = 0, (0, 0), None
        self._unacked.clear()
        self._reported, self._is_urgent = self._observed, False
        self._send(
            Hello(
                job=self.job,
                node=self.node,
                incarnation=self.incarnation,
                attach_seq=self._attach_seq,
                job_spec=self._spec,
                node_spec=self._node_spec,
                observed=self._observed,
                capabilities=frozenset(Capability),
                agent_version="0.0.0",
                cluster_id=self._identity.cluster_id,
                job_uid=self._identity.job_uid,
                lease_id=self._identity.lease_id,
                highest_version=self._highest_version,
            )
        )

    def detach(self) -> None:
        """The stream broke."""
        self.stream = 0
        self._step(Detached())

    def lose_power(self) -> None:
        """Nothing more comes from it, and nobody is told so."""
        self.stream, self.finished = 0, True

    def leave(self) -> None:
        """Its operator ends it."""
        self._step(SignalReceived(signal.SIGTERM))

    def fail_worker(self) -> None:
        """Its first worker dies."""
        now_ms, first = self._timeline.now_ms, self.core.state.workers[0]
        failure = WorkerFailure(
            node=self.node,
            local_rank=0,
            rank=first.rank,
            pid=first.pid,
            exit_code=1,
            message="RuntimeError: the loss is nan",
            traceback="x" * 1_000,
            fail_clock_ms=now_ms,
        )
        self._step(GroupMonitored(self.core.state.round, WorkerState.FAILED, (failure,)))

    def succeed(self) -> None:
        self._step(GroupMonitored(self.core.state.round, WorkerState.SUCCEEDED))

    @property
    def runs(self) -> bool:
        s = self.core.state
        return s.phase is AgentPhase.RUNNING and all(w.state is WorkerState.HEALTHY for w in s.workers.values())

    # --- what the coordinator says

    def take(self, stream: int, message: CoordinatorMessage) -> None:
        if stream != self.stream:
            return
        now_ms = self._timeline.now_ms
        match message:
            case Welcome():
                hello_sent_ms = self._acknowledged(1)
                assert hello_sent_ms is not None
                self.welcome = message
                self._step(Attached(message, hello_sent_ms))
                self._directed(message.directive)
                self._timeline.after(message.heartbeat_interval_ms, partial(self._beat, stream))
                self._send_news()
            case Directive():
                self._directed(message)
            case Ack(seq):
                sent_ms = self._acknowledged(seq)
                self._acked = (seq, now_ms)
                if sent_ms is not None:
                    self._step(LeaseRenewed(sent_ms))
            case _:
                raise AssertionError(f"{self.node} is told {message}")

    def _directed(self, directive: Directive) -> None:
        self._highest_version = max(self._highest_version, directive.version)
        self._step(DirectiveReceived(directive))

    def _acknowledged(self, seq: int) -> int | None:
        sent_ms = None
        while self._unacked and self._unacked[0][0] <= seq:
            sent_ms = self._unacked.popleft()[1]
        return sent_ms

    # --- what it says

    def _beat(self, stream: int) -> None:
        if stream == self.stream and not self.finished and self.welcome is not None:
            # What would be told in a moment, beat or no beat, is no part of what the beats cost.
            if not self._send_observed(is_beat=self.core.state.tell_at_ms is None):
                self._send(Heartbeat(self._reported.version), is_beat=True)
            self._timeline.after(self.welcome.heartbeat_interval_ms, partial(self._beat, stream))

    def _send_news(self) -> None:
        if self._is_urgent and self.welcome is not None and self.stream:
            self._send_observed()

    def _send_observed(self, *, is_beat: bool = False) -> bool:
        """False if there is nothing new in it."""
        is_new, self._is_urgent = self._observed != self._reported, False
        if is_new:
            self._reported = self._observed
            self._send(self._observed, is_beat=is_beat)
        return is_new

    def _send(self, message: AgentMessage, *, is_beat: bool = False) -> None:
        now_ms = self._timeline.now_ms
        self._seq += 1
        self._unacked.append((self._seq, now_ms))
        lease_id = self.welcome.lease_id if self.welcome is not None else 0
        clock = ClockReading(now_ms, *self._acked)
        self._line.send(self.stream, message, lease_id, self._seq, clock, is_beat=is_beat)

    # --- its core

    def _step(self, event: Event) -> None:
        output = self.core.step(event, self._timeline.now_ms)
        self._deadline_ms = output.next_deadline_ms
        self._set_alarm()
        self._effects.extend(output.effects)
        while self._effects:
            self._perform(self._effects.popleft())

    def _set_alarm(self) -> None:
        """One, at the core's deadline or before it: a deadline that moves on is no reason for another."""
        at_ms = self._deadline_ms
        if at_ms is not None and (self._alarm_ms is None or at_ms < self._alarm_ms):
            self._alarm_ms = at_ms
            self._timeline.at(at_ms, partial(self._alarmed, at_ms))

    def _alarmed(self, at_ms: int) -> None:
        if at_ms != self._alarm_ms or self.finished:
            return
        self._alarm_ms = None
        if self._deadline_ms is not None and self._deadline_ms <= self._timeline.now_ms:
            self._step(TimeAdvanced())
        else:
            self._set_alarm()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Report(observed, can_wait):
                self._observed = observed
                self._is_urgent |= not can_wait
                self._send_news()
            case SetIdentity():
                self._identity = effect
            case HoldPort(offer_id):
                port = PORTS[offer_id % len(PORTS)]
                self._step(PortHeld(offer_id, Endpoint(self.address, port)))
            case StartWorkers(assignment):
                pids = {rank: 1_000 + rank for rank in range(self._node_spec.local_world_size)}
                self._step(WorkersStarted(assignment.round, pids))
            case StopWorkers(round=number):
                self._step(WorkersGone(number))
            case Leave(reason, message):
                self._goodbye = Goodbye(reason, message)
                self._send(self._goodbye)
            case Finish():
                self.finished = True
            case SetFence() | CloseStore() | Say():
                pass
            case KillWorker() | Reattach():
                raise AssertionError(f"{self.node} is well, and wants {effect}")
            case _:
                assert_never(effect)
