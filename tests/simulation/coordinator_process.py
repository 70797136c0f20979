"""One start of the coordinator: the driver's order of duties, and crashes between any two of them.

Events are stepped in turns. A turn's records become durable in one append; only then its effects are let out, and only
then the next turn begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Protocol, assert_never

from rallypoint.errors import Refusal
from rallypoint_coordinator.core import invariants
from rallypoint_coordinator.core.cluster import Cluster, Retention
from rallypoint_coordinator.core.effects import (
    Answer,
    Effect,
    EndStream,
    Explain,
    Output,
    RefuseStream,
    SendAck,
    SendDirective,
    SendLeaseStale,
    SendWelcome,
)
from rallypoint_coordinator.core.events import (
    AgentHeartbeat,
    Event,
    GoneReported,
    Stamp,
    StreamClosed,
    TimeAdvanced,
)
from rallypoint_coordinator.core.invariants import InvariantViolation
from rallypoint_coordinator.core.records import Entry
from simulation.journal import SimJournal, check_replay
from simulation.network import Ack, Closing, Down, LeaseStale, Stream
from simulation.oracles import Oracles
from simulation.world import WALL_EPOCH_MS, Alarm, Clock, Violation, World

TURN_EVENTS_MAX = 64
NAME = "coordinator"


class CrashPoint(StrEnum):
    """Where in a turn that decides something the process dies."""

    BEFORE_APPEND = "before the append"
    AFTER_APPEND = "after the append"
    AMID_EFFECTS = "amid the effects"


class Machine(Protocol):
    """What a process has from its machine."""

    journal: SimJournal
    disk_ms: tuple[int, int]
    retention: Retention

    def process_died(self) -> None: ...
    def fresh_id(self, kind: str) -> str: ...


class CoordinatorProcess:
    """The network's server."""

    def __init__(self, machine: Machine, world: World, oracles: Oracles) -> None:
        self.cluster: Cluster = machine.journal.replay()
        self.crash_point: CrashPoint | None = None
        self._machine = machine
        self._world = world
        self._oracles = oracles
        self._clock = Clock(world)
        self._alarm = Alarm(world, self._clock, partial(self.receive, TimeAdvanced()))
        self._queue: deque[Event] = deque()
        self._streams: dict[int, Stream] = {}
        self._calls: dict[int, Callable[[bool | Refusal], None]] = {}
        self._revision = machine.journal.revision
        self.undurable: list[Entry] = []
        self._alive = True

    # --- life and death

    def begin(self) -> None:
        self._world.tell("=", NAME, f"starts with {self._revision} records")
        self._oracles.leases.coordinator_started()
        output = self.cluster.start(self._stamp(), self._machine.fresh_id("cluster"))
        self._revision += len(output.records)
        self._settle([output])

    def die(self) -> None:
        """The append under way, if there is one, may or may not reach the disk."""
        check_replay(self._machine.journal, self.undurable, self.cluster)
        if self.undurable and self._world.chance(0.5):
            self._make_durable()
        self._world.tell("!", NAME, f"dies, {len(self.undurable)} records are lost")
        self._alive = False
        for stream in self._streams.values():
            stream.close_server(Closing(broken=True))
        self._machine.process_died()

    # --- the network's side

    def opened(self, stream: Stream) -> None:
        self._streams[stream.number] = stream

    def called(self, event: GoneReported, answer: Callable[[bool | Refusal], None]) -> None:
        number = len(self._calls) + 1
        self._calls[number] = answer
        self.receive(replace(event, call=number))

    def receive(self, event: Event) -> None:
        if self._alive:
            self._queue.append(event)
            if not self.undurable:
                self._turn()

    # --- turns

    def _turn(self) -> None:
        while self._queue and not self.undurable:
            count = min(len(self._queue), TURN_EVENTS_MAX)
            outputs = [self._step(self._queue.popleft()) for _ in range(count)]
            self._settle([*outputs, self._retain()])

    def _step(self, event: Event) -> Output:
        if not isinstance(event, AgentHeartbeat | TimeAdvanced):
            self._world.tell("<", NAME, event)
        stamp = self._stamp()
        output = self.cluster.step(event, stamp)
        self._revision += len(output.records)
        self._oracles.leases.coordinator_stepped(event, output)
        self._check_lives(output)
        if isinstance(event, StreamClosed):
            self._streams.pop(event.stream, None)
        return output

    def _retain(self) -> Output:
        output = self.cluster.retain(self._machine.retention, self._stamp())
        self._revision += len(output.records)
        return output

    def _check_lives(self, output: Output) -> None:
        """The machine's own invariants; a step without records changes no fact."""
        for uid in dict.fromkeys(entry.job_uid for entry in output.records):
            life = self.cluster.lives.get(uid)
            try:
                if life is not None:
                    invariants.check(life)
            except InvariantViolation as error:
                raise Violation(error.invariant, str(error)) from error

    def _stamp(self) -> Stamp:
        wall_ms = WALL_EPOCH_MS + self._world.now_ms
        return Stamp(at_ms=self._clock.now_ms(), wall_ms=wall_ms, revision=self._revision)

    def _settle(self, outputs: list[Output]) -> None:
        """Make what the steps decided durable, then let out what follows from it."""
        effects = [effect for output in outputs for effect in output.effects]
        self.undurable = [entry for output in outputs for entry in output.records]
        self._alarm.set(outputs[-1].next_deadline_ms)
        for entry in self.undurable:
            self._world.tell("=", NAME, entry.record)
        if not self.undurable:
            self._let_out(effects)
        elif self.crash_point is CrashPoint.BEFORE_APPEND:
            self._lose_undurable()
            self.die()
        else:
            low, high = self._machine.disk_ms
            self._world.after(self._world.between(low, high), partial(self._appended, effects))

    def _lose_undurable(self) -> None:
        check_replay(self._machine.journal, self.undurable, self.cluster)
        self.undurable = []
        self.cluster = self._machine.journal.replay()

    def _appended(self, effects: list[Effect]) -> None:
        if not self._alive:
            return
        self._make_durable()
        if self.crash_point is CrashPoint.AFTER_APPEND:
            self.die()
        elif self.crash_point is CrashPoint.AMID_EFFECTS:
            self._let_out(effects[: self._world.between(0, len(effects))])
            self.die()
        else:
            self._let_out(effects)
            self._turn()

    def _make_durable(self) -> None:
        journal = self._machine.journal
        first = journal.revision + 1
        journal.append(self.undurable)
        for revision, entry in enumerate(self.undurable, first):
            self._oracles.journal.durable(entry, revision)
        self.undurable = []

    # --- effects

    def _let_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._let_one_out(effect)

    def _let_one_out(self, effect: Effect) -> None:
        match effect:
            case SendWelcome():
                self._send(effect.stream, effect.welcome)
            case SendDirective():
                self._send(effect.stream, effect.directive)
            case SendAck():
                self._send(effect.stream, Ack(effect.seq))
            case SendLeaseStale():
                self._send(effect.stream, LeaseStale(effect.message))
                self._close(effect.stream, Closing())
            case EndStream():
                self._close(effect.stream, Closing())
            case RefuseStream():
                self._close(effect.stream, Closing(effect.refusal))
            case Answer():
                self._calls[effect.call](effect.answer)
            case Explain():
                self._world.tell("=", NAME, f"{effect.job_uid}: {effect.reason}: {effect.message}")
            case _:
                assert_never(effect)

    def _send(self, number: int, message: Down) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.send_down(message)

    def _close(self, number: int, closing: Closing) -> None:
        """End the stream; the machine hears of the end as of any other."""
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.close_server(closing)
            self._world.after(0, partial(self.receive, StreamClosed(stream=number)))
