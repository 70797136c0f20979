"""The agent's link on simulated time: attaches again and again, heartbeats, and tells the main thread what it hears."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Protocol, assert_never

from rallypoint.errors import Reason, Refusal
from rallypoint.model import (
    NO_VERSION,
    Capability,
    ClockReading,
    Directive,
    Endpoint,
    Hello,
    JobSpec,
    NodeSpec,
    Observed,
    Welcome,
)
from rallypoint_agent.backoff import Backoff
from rallypoint_agent.core.effects import Leave
from rallypoint_agent.core.events import (
    Attached,
    AttachRefused,
    ConnectionsRefused,
    Detached,
    DirectiveReceived,
    LeaseRenewed,
    LeaseStaleReceived,
)
from rallypoint_agent.core.events import Event as MainEvent
from rallypoint_agent.link import delays
from rallypoint_agent.link.config import LinkConfig
from rallypoint_coordinator.core.events import AgentAttached, AgentHeartbeat, AgentLeft, AgentObserved
from simulation.network import Ack, Attempt, Closing, Down, LeaseStale, Network, Path, Stream
from simulation.world import Action, Clock, World

STEADY_MS = 5_000


class Owner(Protocol):
    """The agent process that the link is a thread of."""

    name: str
    job: str
    node: str
    incarnation: str
    job_spec: JobSpec
    node_spec: NodeSpec
    clock: Clock
    path: Path

    def after(self, delay_ms: int, action: Action) -> None: ...
    def guard(self, action: Action) -> None: ...
    def post(self, event: MainEvent) -> None: ...
    def contacted(self, sent_ms: int) -> None: ...
    def heard(self, message: Down) -> None: ...
    def held(self, asked_ms: int) -> None: ...


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


class LinkStream:
    """One stream, from its Hello to its end."""

    def __init__(self, stream: Stream, began_ms: int) -> None:
        self.stream = stream
        self.began_ms = began_ms
        self.welcome: Welcome | None = None
        self.reported = Observed()
        self.goodbye_seq: int | None = None
        self.acked = (0, 0)
        """The newest acknowledgement, and what the agent's clock showed when it came."""
        self._last_seq = 0
        self._sent: deque[tuple[int, int, int]] = deque()

    def number(self, clock_ms: int, world_ms: int) -> int:
        """The sequence number of a message that is sent now."""
        self._last_seq += 1
        self._sent.append((self._last_seq, clock_ms, world_ms))
        return self._last_seq

    def acknowledged(self, seq: int) -> tuple[int, int] | None:
        """When the newest message up to ``seq`` was sent, on the agent's clock and in virtual time."""
        newest = None
        while self._sent and self._sent[0][0] <= seq:
            _, clock_ms, world_ms = self._sent.popleft()
            newest = (clock_ms, world_ms)
        return newest


class Link:
    def __init__(self, world: World, network: Network, owner: Owner) -> None:
        self.left = self.released = False
        self.observed = Observed()
        self._is_urgent = False
        """Whether something that cannot wait is still to be said."""
        self.identity = ("", "", 0)
        self._world = world
        self._network = network
        self._owner = owner
        self._chance = world.chance(f"link/{owner.name}")
        self._beat_chance = world.chance(f"beats/{owner.name}")
        self._leave: Leave | None = None
        self._closed = False
        self._attach_seq = 0
        self._highest_version = NO_VERSION
        self._config = LinkConfig(
            endpoints=(Endpoint("coordinator", 1),),
            job=owner.job,
            node=owner.node,
            incarnation=owner.incarnation,
            job_spec=owner.job_spec,
            node_spec=owner.node_spec,
            agent_version="",
            capabilities=frozenset(Capability),
        )
        self._backoff = delays.between_attaches(self._config, self._chance)
        self._heartbeat_interval_ms = owner.job_spec.heartbeat_interval_ms
        self._knocks = self._new_knocks()
        self._welcome_timeout_ms = self._config.welcome_timeout_ms
        self._patient_until_ms = 0
        self._attempt: Attempt | None = None
        self._current: LinkStream | None = None
        self._wait = 0

    # --- what the main thread wishes

    def start(self) -> None:
        self._attach()

    def report(self, observed: Observed, *, can_wait: bool) -> None:
        self.observed = observed
        self._is_urgent |= not can_wait
        self._send_news()

    def reattach(self) -> None:
        """Drop the stream, if there is one, and attach again without delay."""
        self._drop()
        self._attach()

    def leave(self, leave: Leave) -> None:
        self._leave = leave
        if self._current is None or self._current.welcome is None:
            self._end_for_good()
        else:
            self._send_news()

    def close(self) -> None:
        """End without a Goodbye."""
        self._drop()
        self._end_for_good()

    def power_lost(self) -> None:
        """End, and say nothing of it to anybody."""
        if self._current is not None:
            self._current.stream.vanish_client()
        self._closed = True

    # --- faults

    @property
    def stream(self) -> Stream | None:
        return self._current.stream if self._current is not None else None

    def lose_stream(self, stream: Stream) -> None:
        """The keepalive finds the coordinator silent for too long."""
        if stream is self.stream:
            self._drop()
            self._back_off()

    # --- attaching

    def _attach(self) -> None:
        self._wait += 1
        if self._closed or self._leave is not None:
            return
        attempt: Attempt | None = None
        attempt = self._network.connect(
            self._owner.path,
            lambda message: self._owner.guard(partial(self._receive, attempt, message)),
            lambda stream: self._owner.guard(partial(self._established, attempt, stream)),
            lambda: self._owner.guard(partial(self._gave_up, attempt)),
        )
        self._attempt = attempt
        self._wait_for_welcome(attempt, self._welcome_timeout_ms)

    def _established(self, attempt: Attempt | None, stream: Stream) -> None:
        if attempt is None or attempt is not self._attempt:
            stream.close_client()
            return
        self._current = LinkStream(stream, self._world.now_ms)
        self._attach_seq += 1
        hello = self._hello()
        self._current.reported, self._is_urgent = hello.observed, False
        self._number(self._current)
        life = f"life-{stream.number}"
        self._world.tell(">", self._owner.name, hello)
        stream.send_up(
            AgentAttached(
                stream=stream.number,
                hello=hello,
                peer=stream.address,
                fresh_uid=life,
                clock=self._reading(self._current),
            )
        )
        if not hello.lease_id:
            self._wait_for_welcome(attempt, _ms(delays.with_hello_said_s(self._welcome_timeout_ms / 1000)))

    def _hello(self) -> Hello:
        cluster_id, job_uid, lease_id = self.identity
        config = self._config
        return Hello(
            job=config.job,
            node=config.node,
            incarnation=config.incarnation,
            attach_seq=self._attach_seq,
            job_spec=config.job_spec,
            node_spec=config.node_spec,
            observed=self.observed,
            capabilities=config.capabilities,
            cluster_id=cluster_id,
            job_uid=job_uid,
            lease_id=lease_id,
            highest_version=self._highest_version,
        )

    def _wait_for_welcome(self, attempt: Attempt, patience_ms: int) -> None:
        self._patient_until_ms = self._world.now_ms + patience_ms
        self._owner.after(patience_ms, partial(self._no_welcome, attempt))

    def _no_welcome(self, attempt: Attempt) -> None:
        if attempt is not self._attempt or self._world.now_ms < self._patient_until_ms:
            return
        if self._current is None or self._current.welcome is None:
            if self._current is not None:
                self._welcome_timeout_ms = delays.longer_welcome_timeout_ms(self._config, self._welcome_timeout_ms)
            self._drop()
            self._back_off()

    def _gave_up(self, attempt: Attempt | None) -> None:
        if attempt is self._attempt:
            self._drop()
            self._back_off()

    def _drop(self) -> None:
        """Our side of the stream, and of the attempt at one, ends."""
        if self._attempt is not None:
            self._attempt.abandoned = True
            self._attempt = None
        current, self._current = self._current, None
        if current is None:
            return
        current.stream.close_client()
        if current.welcome is not None:
            if self._world.now_ms - current.began_ms >= STEADY_MS:
                self._backoff.reset()
            self._owner.post(Detached())

    def _end_for_good(self) -> None:
        self.left = self._closed = True

    # --- between two streams

    def _back_off(self) -> None:
        """See whether nobody is there at all, knock as long as that is so, else wait; and try again."""
        self._wait += 1
        if self._leave is not None:
            self._end_for_good()
        self._knocks = self._new_knocks()
        self._probe(self._wait, was_gone=False)

    def _new_knocks(self) -> Backoff:
        return delays.between_knocks(self._config, self._heartbeat_interval_ms, self._chance)

    def _probe(self, wait: int, was_gone: bool) -> None:
        if wait == self._wait and not self._closed:
            began_ms, world_ms = self._owner.clock.now_ms(), self._world.now_ms
            done = partial(self._probed, wait, was_gone, began_ms, world_ms)
            self._network.probe(self._owner.path, lambda refused: self._owner.guard(partial(done, refused)))

    def _probed(self, wait: int, was_gone: bool, began_ms: int, world_ms: int, refused: bool) -> None:
        if wait != self._wait or self._closed:
            return
        if refused:
            self._owner.held(world_ms)
            self._owner.post(ConnectionsRefused(began_ms))
            self._backoff.reset()
            self._owner.after(_ms(self._knocks.next_s()), partial(self._probe, wait, was_gone=True))
        elif was_gone:
            self._attach()
        else:
            self._owner.after(_ms(self._backoff.next_s()), partial(self._retry, wait))

    def _retry(self, wait: int) -> None:
        if wait == self._wait:
            self._attach()

    # --- what comes in

    def _receive(self, attempt: Attempt | None, message: Down) -> None:
        current = self._current
        if attempt is not self._attempt or current is None:
            return
        self._owner.heard(message)
        match message:
            case Welcome():
                self._welcomed(current, message)
            case Directive():
                self._directed(message)
            case Ack():
                self._acked(current, message)
            case LeaseStale():
                self._owner.post(LeaseStaleReceived(str(message)))
                self._drop()
                self._wait += 1
            case Closing():
                self._closing(current, message)
            case _:
                assert_never(message)

    def _welcomed(self, current: LinkStream, welcome: Welcome) -> None:
        current.welcome = welcome
        self._welcome_timeout_ms = self._config.welcome_timeout_ms
        self._heartbeat_interval_ms = welcome.heartbeat_interval_ms
        current.acked = (1, self._owner.clock.now_ms())
        self.identity = (welcome.cluster_id, welcome.job_uid, welcome.lease_id)
        sent = current.acknowledged(1)
        assert sent is not None
        clock_ms, world_ms = sent
        self._owner.contacted(world_ms)
        self._owner.post(Attached(welcome, clock_ms))
        self._directed(welcome.directive)
        first_s = delays.to_first_beat_s(welcome.heartbeat_interval_ms / 1000, self._beat_chance)
        self._owner.after(_ms(first_s), partial(self._beat, current))
        self._send_news()

    def _directed(self, directive: Directive) -> None:
        self._highest_version = max(self._highest_version, directive.version)
        self._owner.post(DirectiveReceived(directive))

    def _acked(self, current: LinkStream, seq: int) -> None:
        current.acked = (seq, self._owner.clock.now_ms())
        sent = current.acknowledged(seq)
        if sent is not None:
            clock_ms, world_ms = sent
            self._owner.contacted(world_ms)
            self._owner.post(LeaseRenewed(clock_ms))
        if current.goodbye_seq is not None and seq >= current.goodbye_seq:
            self.released = True
            self._drop()
            self._end_for_good()

    def _closing(self, current: LinkStream, closing: Closing) -> None:
        self._drop()
        if closing.refusal is None:
            self._back_off()
        else:
            self._refused(closing.refusal, current.acknowledged(1) if current.welcome is None else None)

    def _refused(self, refusal: Refusal, hello_sent: tuple[int, int] | None) -> None:
        self._wait += 1
        clock_ms, world_ms = hello_sent or (None, None)
        if refusal.reason is Reason.RECOVERING and world_ms is not None:
            self._owner.held(world_ms)
        self._owner.post(AttachRefused(refusal, clock_ms))
        if self._leave is not None:
            self._end_for_good()
        elif not refusal.final:
            self._owner.after(_ms(self._backoff.next_s()), partial(self._retry, self._wait))

    # --- what goes out

    def _number(self, current: LinkStream) -> int:
        return current.number(self._owner.clock.now_ms(), self._world.now_ms)

    def _reading(self, current: LinkStream) -> ClockReading:
        return ClockReading(self._owner.clock.now_ms(), *current.acked)

    def _send_news(self) -> None:
        """What cannot wait, then the Goodbye."""
        current = self._current
        if current is None or current.welcome is None or current.goodbye_seq is not None:
            return
        number, lease_id = current.stream.number, current.welcome.lease_id
        if self._is_urgent and self.observed != current.reported:
            self._send_observed(current, lease_id)
        self._is_urgent = False
        if self._leave is not None:
            current.goodbye_seq = seq = self._number(current)
            reason, message = self._leave.reason, self._leave.message
            self._world.tell(">", self._owner.name, self._leave)
            current.stream.send_up(AgentLeft(stream=number, lease_id=lease_id, seq=seq, reason=reason, message=message))

    def _send_observed(self, current: LinkStream, lease_id: int) -> None:
        number, observed = current.stream.number, self.observed
        current.reported, self._is_urgent = observed, False
        seq = self._number(current)
        self._world.tell(">", self._owner.name, observed)
        clock = self._reading(current)
        current.stream.send_up(AgentObserved(stream=number, lease_id=lease_id, seq=seq, observed=observed, clock=clock))

    def _beat(self, current: LinkStream) -> None:
        if current is not self._current or current.welcome is None or current.goodbye_seq is not None:
            return
        number, lease_id = current.stream.number, current.welcome.lease_id
        if self.observed != current.reported:
            self._send_observed(current, lease_id)
        else:
            seq, clock, version = self._number(current), self._reading(current), current.reported.version
            beat = AgentHeartbeat(stream=number, lease_id=lease_id, seq=seq, version=version, clock=clock)
            current.stream.send_up(beat)
        self._owner.after(current.welcome.heartbeat_interval_ms, partial(self._beat, current))
