"""The coordinator of the fleet: the real core, door and journal codec, without gRPC and without a disk."""

from __future__ import annotations

import time
from collections import deque
from functools import partial

from rallypoint.model import ClockReading, Directive
from rallypoint.wire import Ack, AgentMessage, CoordinatorMessage
from rallypoint_coordinator.core.cluster import Cluster
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
from rallypoint_coordinator.core.events import Event, Stamp, StreamClosed, TimeAdvanced
from rallypoint_coordinator.server.driver import DriverOptions
from rallypoint_coordinator.server.encoded import Encoder
from rallypoint_coordinator.server.turns import Batch, pack
from rallypoint_coordinator.store.codec import decode
from rallypoint_coordinator.store.sqlite import SqliteJournal
from simulated_fleet.agent import Agent
from simulated_fleet.door import Sent
from simulated_fleet.meter import Account, Phase
from simulated_fleet.timeline import Timeline

WALL_MS = 1_700_000_000_000
LATENCY_MS = 1
CLUSTER_ID = "c" * 32


class Coordinator:
    """``phase``: what the cost is charged to. Like the real driver it takes many events a turn, and appends once."""

    def __init__(self, timeline: Timeline) -> None:
        self.phase = Phase("")
        self.cluster = Cluster()
        self.records: list[bytes] = []
        self._timeline = timeline
        self._encoder = Encoder()
        self._turn_events_max = DriverOptions().turn_events_max
        self._agents: dict[int, Agent] = {}
        self._streams = 0
        self._inbox: deque[Sent | Event] = deque()
        self._is_awake = False
        self._deadline_ms: int | None = None

    def start(self) -> None:
        began = time.thread_time()
        output = self.cluster.start(self.stamp(), CLUSTER_ID)
        self.phase.news.stepped("start", time.thread_time() - began)
        self._commit([(self.phase.news, output)])

    def restart(self) -> float:
        """Forget all but the journal, and read that again. Returns the CPU seconds that the reading took."""
        for agent in self._agents.values():
            agent.detach()
        self._agents.clear()
        self._inbox.clear()
        self.cluster, self._deadline_ms = Cluster(), None
        began = time.thread_time()
        for revision, data in enumerate(self.records, 1):
            self.cluster.apply(decode(data), revision)
        took_s = time.thread_time() - began
        self.start()
        return took_s

    def stamp(self, undurable: int = 0) -> Stamp:
        """``undurable``: so many records have been decided and wait for their append."""
        now_ms = self._timeline.now_ms
        return Stamp(at_ms=now_ms, wall_ms=WALL_MS + now_ms, revision=len(self.records) + undurable)

    # --- what agents see of it

    def open(self, agent: Agent) -> int:
        self._streams += 1
        self._agents[self._streams] = agent
        return self._streams

    def send(
        self, stream: int, message: AgentMessage, lease_id: int, seq: int, clock: ClockReading, *, is_beat: bool
    ) -> None:
        sent = Sent(stream, self._agents[stream].address, message, lease_id, seq, clock, is_beat)
        self._timeline.after(LATENCY_MS, partial(self._arrive, sent))

    # --- turns

    def _arrive(self, what: Sent | Event) -> None:
        self._inbox.append(what)
        if not self._is_awake:
            self._is_awake = True
            self._timeline.after(0, self._take_turns)

    def _take_turns(self) -> None:
        self._is_awake = False
        while self._inbox:
            count = min(len(self._inbox), self._turn_events_max)
            self._turn([self._inbox.popleft() for _ in range(count)])

    def _look_at_deadline(self, at_ms: int) -> None:
        if at_ms == self._deadline_ms:
            self._deadline_ms = None
            self._turn([TimeAdvanced()])

    def _turn(self, taken: list[Sent | Event]) -> None:
        outputs: list[tuple[Account, Output]] = []
        undurable = 0
        for what in taken:
            account = self._account_of(what)
            event = self._enter(what, account) if isinstance(what, Sent) else what
            stamp = self.stamp(undurable)
            began = time.thread_time()
            output = self.cluster.step(event, stamp)
            account.stepped(type(event).__name__, time.thread_time() - began)
            undurable += len(output.records)
            outputs.append((account, output))
        self._commit(outputs)

    def _account_of(self, what: Sent | Event) -> Account:
        return self.phase.renewal if isinstance(what, Sent) and what.is_beat else self.phase.news

    def _enter(self, sent: Sent, account: Account) -> Event:
        data = sent.encoded()
        account.up.add(sent.kind, len(data))
        return self.phase.door.enter(sent, data)

    # --- what comes of them

    def _commit(self, outputs: list[tuple[Account, Output]]) -> None:
        """Append what the turn decided, in batches that a journal takes, then let the effects out."""
        began = time.thread_time()
        batches = list(pack((output for _, output in outputs), SqliteJournal.bounds))
        self.phase.pack_s += time.thread_time() - began
        for batch in batches:
            if batch.records:
                self._append(batch)
        for account, output in outputs:
            for effect in output.effects:
                self._perform(account, effect)
        deadline_ms = outputs[-1][1].next_deadline_ms
        if deadline_ms is not None and deadline_ms != self._deadline_ms:
            self._deadline_ms = deadline_ms
            self._timeline.at(deadline_ms, partial(self._look_at_deadline, deadline_ms))

    def _append(self, batch: Batch) -> None:
        for entry, data in zip(batch.entries, batch.records, strict=True):
            self.phase.records.add(type(entry.record).__name__, len(data))
        self.phase.batches += 1
        self.phase.largest_batch = max(self.phase.largest_batch, (batch.size, len(batch.records)))
        self.records.extend(batch.records)

    def _perform(self, account: Account, effect: Effect) -> None:
        match effect:
            case SendWelcome(stream, welcome):
                self._tell(account, stream, welcome)
            case SendDirective(stream, directive):
                self._tell(account, stream, directive)
            case SendAck(stream, seq):
                self._tell(account, stream, Ack(seq))
            case EndStream(stream):
                self._agents.pop(stream, None)
                self._timeline.after(LATENCY_MS, partial(self._arrive, StreamClosed(stream=stream)))
            case SendLeaseStale() | RefuseStream():
                raise AssertionError(f"an agent that does as it is told is told {effect}")
            case Answer() | Explain():
                pass

    def _tell(self, account: Account, stream: int, message: CoordinatorMessage) -> None:
        agent = self._agents.get(stream)
        if agent is None:
            return
        began = time.thread_time()
        data = self._encoder.encode(message)
        account.encode_s += time.thread_time() - began
        account.down.add(_kind_of(message), len(data))
        self._timeline.after(LATENCY_MS, partial(agent.take, stream, message))


def _kind_of(message: CoordinatorMessage) -> str:
    return type(message.action if isinstance(message, Directive) else message).__name__
