"""Plays the coordinator's stories: agents that say what the story has them say, to the real core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from rallypoint.model import (
    NO_ROUND,
    AgentPhase,
    Endpoint,
    EndpointOffer,
    JobSpec,
    NodeSpec,
    ScaleUp,
    Version,
    WorkerStatus,
)
from rallypoint_coordinator.core.effects import EndStream, Output, RefuseStream, SendAck, SendLeaseStale
from rallypoint_coordinator.core.events import AgentObserved, JobChange, OperatorAsked, Request
from rallypoint_coordinator.core.explain import as_of
from rallypoint_coordinator.core.round_changes import instants_of, phases_of
from rallypoint_coordinator.store.codec import decode, encode
from support.coordinator_script import JOB, Agent, Script
from transcripts.coordinator_words import told_effect, told_record
from transcripts.language import Command, UnknownCommand, duration_ms, seconds

DAY_MS = 24 * 3_600_000
"""What the coordinator's clock of a story is ahead of 0 for its agents: theirs may be behind it."""

Verb = Callable[["CoordinatorStage", Agent, Command], object]


class TellingScript(Script):
    """Writes down all that comes out, but for the acknowledgements of heartbeats that nobody asked about."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.acks_are_told = True
        self.ended: set[int] = set()
        super().__init__()

    def keep(self, out: Output) -> None:
        first = len(self.journal) + 1
        self.journal_as_stored(out)
        super().keep(out)
        self.lines += [told_record(entry.record, revision) for revision, entry in enumerate(out.records, first)]
        effects = [effect for effect in out.effects if self.acks_are_told or not isinstance(effect, SendAck)]
        ends = (effect for effect in out.effects if isinstance(effect, SendLeaseStale | RefuseStream | EndStream))
        self.ended.update(effect.stream for effect in ends)
        node_of = {stream: agent.node for stream, agent in self.by_stream.items()}
        self.lines += [told_effect(effect, node_of) for effect in effects]

    def journal_as_stored(self, out: Output) -> None:
        """What a restart reads is what the codec made of it."""
        out.records[:] = [decode(encode(entry)) for entry in out.records]


class StoryAgent(Agent):
    """Its ports tell whose they are and which offer: a's second is 10.0.0.1:4102."""

    def next_offer(self) -> EndpointOffer:
        return self.offer_after(self.observed.offer.offer_id if self.observed.offer else 0)

    def offer_after(self, used: int) -> EndpointOffer:
        letter = ord(self.node[0]) - ord("a")
        return EndpointOffer(used + 1, Endpoint(f"10.0.0.{letter + 1}", 4_001 + 100 * (letter + 1) + used))


def _if_given(command: Command, name: str) -> int | None:
    return int(command.options[name]) if name in command.options else None


class CoordinatorStage:
    def __init__(self) -> None:
        self.script = TellingScript()
        self.spec = JobSpec()
        self.agents: dict[str, Agent] = {}
        self.silent: set[str] = set()

    def do(self, command: Command) -> list[str]:
        self.script.lines.clear()
        who, verb = command.word(0), command.word(1)
        if who in _SCENE:
            _SCENE[who](self, command)
        elif verb in VERBS:
            VERBS[verb](self, self._agent(who, command), command)
        else:
            raise UnknownCommand(" ".join(command.words))
        return list(self.script.lines)

    def _agent(self, node: str, command: Command) -> Agent:
        if node not in self.agents:
            node_spec = NodeSpec(local_world_size=command.number("workers", 1), role=command.options.get("role", "x"))
            self.agents[node] = self._incarnation(node, 1, node_spec)
        return self.agents[node]

    def _incarnation(self, node: str, number: int, node_spec: NodeSpec) -> StoryAgent:
        agent = StoryAgent(self.script, node, f"{node}{number}", self.spec, node_spec)
        agent.observed = replace(agent.observed, offer=agent.offer_after(0))
        return agent

    # --- the scene

    def job(self, command: Command) -> None:
        low, _, high = command.options.get("nodes", "1").partition(":")
        when, _, delay = command.options.get("scale-up", "immediate").partition(":")
        self.spec = JobSpec(
            min_nodes=int(low),
            max_nodes=int(high or low),
            max_restarts=command.number("restarts", 0),
            last_call_timeout_ms=command.duration_ms("last-call", 30_000),
            join_timeout_ms=command.duration_ms("join", 600_000),
            rejoin_wait_ms=command.duration_ms("rejoin", 0),
            scale_up=ScaleUp(when.upper().replace("-", "_")),
            scale_up_delay_ms=duration_ms(delay) if delay else 0,
        )

    def running(self, command: Command) -> None:
        """The beginning that most stories share: the nodes have met, and run round 0."""
        nodes = command.words[1:]
        agents = [self._agent(node, command) for node in nodes]
        for agent in agents:
            agent.attach()
        if self.script.life.facts.round is None:
            self._until(self.script.now_ms + self.spec.last_call_timeout_ms)
        for agent in agents:
            agent.run()
        revision = len(self.script.journal)
        self.script.lines[:] = [f"(round 0 runs on {', '.join(nodes)}; the last record is {revision})"]

    def advance(self, command: Command) -> None:
        """Time passes; who is connected and not silent heartbeats."""
        end_ms = self.script.now_ms + duration_ms(command.word(1))
        self.script.acks_are_told = False
        while self.script.now_ms < end_ms:
            self._heartbeats()
            self._until(min(end_ms, self.script.now_ms + self.spec.heartbeat_interval_ms))
        self.script.acks_are_told = True

    def _until(self, end_ms: int) -> None:
        due_ms = self.script.next_deadline_ms
        while due_ms is not None and due_ms <= end_ms:
            before = len(self.script.lines)
            self.script.advance(max(0, due_ms - self.script.now_ms))
            if len(self.script.lines) > before:
                self.script.lines.insert(before, f"at {seconds(self.script.now_ms)}")
            due_ms = self.script.next_deadline_ms
        self.script.now_ms = end_ms

    def _heartbeats(self) -> None:
        for agent in self.agents.values():
            is_open = agent.stream in self.script.by_stream and agent.stream not in self.script.ended
            if is_open and agent.node not in self.silent and agent.directive is not None:
                agent.heartbeat(version=agent.directive.version)

    def restart(self, command: Command) -> None:
        self.script.restart()

    def lose(self, command: Command) -> None:
        """Its records are lost, but for as many of the first as are named."""
        self.script.lose(int(command.word(1, "0")))

    def operator(self, command: Command) -> None:
        request = Request(command.word(1).upper())
        change = JobChange(
            min_nodes=_if_given(command, "min"),
            max_nodes=_if_given(command, "max"),
            max_restarts=_if_given(command, "restarts"),
        )
        self.script.feed(
            OperatorAsked(
                call=1,
                job=JOB,
                request=request,
                by="ops",
                reason=command.options.get("why", "upkeep"),
                node=command.word(2),
                change=change,
                hold_ms=command.duration_ms("for", 0),
            )
        )

    def disk(self, command: Command) -> None:
        self.script.disk_ms = duration_ms(command.word(1))

    def show(self, command: Command) -> None:
        life = self.script.life
        members = ", ".join(
            f"{member.node} ({member.gone or f'lease {member.lease_id}'})" for member in life.facts.members.values()
        )
        self.script.lines += [
            f"at {seconds(self.script.now_ms)}: {life.facts.state}, {as_of(life, self.script.now_ms)[0]}",
            f"restarts spent: {life.facts.restart_count} of {life.facts.spec.max_restarts}; members: {members}",
        ]

    def phases(self, command: Command) -> None:
        """How the newest round ended, or all did, and how long each phase of the way to the next took."""
        life = self.script.life
        for change in life.facts.round_changes[0 if command.word(1) == "all" else -1 :]:
            took = phases_of(instants_of(change, life.watch.sightings))
            told = ", ".join(f"{name.removesuffix('_ms')} {_told(ms)}" for name, ms in took._asdict().items())
            self.script.lines.append(f"round {change.round}, {change.cause}: {told}")
            self.script.lines.append(f"  {change.message}")

    # --- agents

    def attach(self, agent: Agent, command: Command) -> None:
        self.silent.discard(agent.node)
        if command.options.get("promises") == "none":
            agent.capabilities = frozenset()
        agent.attach()

    def begin_to_start(self, agent: Agent, command: Command) -> None:
        """It was told to run, and its workers are not there yet."""
        workers = tuple(WorkerStatus(local_rank=rank, rank=rank) for rank in range(agent.node_spec.local_world_size))
        agent.report(AgentPhase.RUNNING, workers=workers)

    def be_stuck(self, agent: Agent, command: Command) -> None:
        """SIGKILL does not end these processes."""
        agent.report(AgentPhase.STOPPING, unkillable_pids=tuple(map(int, command.words[2:])))

    def fail(self, agent: Agent, command: Command) -> None:
        message = command.word(3)
        traceback = f"Traceback (most recent call last): ...\n{message}" if message else ""
        clock_ms = None if agent.clock_ms is None else agent.shown(-agent.lag_ms - command.duration_ms("ago", 0))
        agent.fail(exit_code=int(command.word(2, "1")), message=message, traceback=traceback, fail_clock_ms=clock_ms)

    def set_clock(self, agent: Agent, command: Command) -> None:
        """Its clock is wrong by so much; a message takes so long, either way."""
        agent.clock_ms = DAY_MS + command.duration_ms("ahead", 0) - command.duration_ms("behind", 0)
        agent.lag_ms = command.duration_ms("lag", 0)

    def disconnect(self, agent: Agent, command: Command) -> None:
        self.script.by_stream.pop(agent.stream)
        agent.break_stream()

    def hear_nothing(self, agent: Agent, command: Command) -> None:
        """What it was told so far was lost on the way."""
        agent.welcome = agent.directive = None

    def fall_silent(self, agent: Agent, command: Command) -> None:
        self.silent.add(agent.node)

    def fence(self, agent: Agent, command: Command) -> None:
        """Its workers are gone, and nobody could be told."""
        agent.observed = replace(agent.observed, phase=AgentPhase.READY, offer=agent.next_offer())

    def lose_lease(self, agent: Agent, command: Command) -> None:
        """It was told LEASE_STALE: its workers are gone, and it names no lease when it attaches again."""
        self.fence(agent, command)
        assert agent.welcome is not None
        agent.welcome = replace(agent.welcome, lease_id=0)

    def be_reborn(self, agent: Agent, command: Command) -> None:
        """Another incarnation, on a node where an earlier one was."""
        self.agents[agent.node] = self._incarnation(agent.node, int(agent.incarnation[-1]) + 1, agent.node_spec)

    def speak_late(self, agent: Agent, command: Command) -> None:
        """What a said on its first stream comes only now."""
        first = min(stream for stream, holder in self.script.by_stream.items() if holder is agent)
        late = replace(agent.observed, phase=AgentPhase(command.word(2)))
        self.script.feed(AgentObserved(stream=first, lease_id=agent.lease_id, seq=1, observed=late))

    def say(self, agent: Agent, command: Command) -> None:
        """A report of which the story says everything that matters."""
        offer = command.number("offer", 0)
        changes: dict[str, object] = {"round": command.number("round", NO_ROUND)}
        if "seen" in command.options:
            epoch, _, revision = command.options["seen"].partition(".")
            changes["version"] = Version(int(epoch), int(revision))
        if offer:
            assert isinstance(agent, StoryAgent)
            changes["offer"] = agent.offer_after(offer - 1)
        agent.report(AgentPhase(command.word(2)), **changes)


def _told(ms: int | None) -> str:
    return "?" if ms is None else seconds(ms)


_SCENE: Mapping[str, Callable[[CoordinatorStage, Command], None]] = {
    "job": CoordinatorStage.job,
    "running": CoordinatorStage.running,
    "advance": CoordinatorStage.advance,
    "restart": CoordinatorStage.restart,
    "lose": CoordinatorStage.lose,
    "operator": CoordinatorStage.operator,
    "show": CoordinatorStage.show,
    "phases": CoordinatorStage.phases,
    "disk": CoordinatorStage.disk,
}

VERBS: Mapping[str, Verb] = {
    "attach": CoordinatorStage.attach,
    "run": lambda stage, agent, command: agent.run(),
    "stopping": lambda stage, agent, command: agent.report(AgentPhase.STOPPING),
    "starting": CoordinatorStage.begin_to_start,
    "stuck": CoordinatorStage.be_stuck,
    "stop": lambda stage, agent, command: agent.clear(),
    "clock": CoordinatorStage.set_clock,
    "fail": CoordinatorStage.fail,
    "succeed": lambda stage, agent, command: agent.report(AgentPhase.SUCCEEDED),
    "heartbeat": lambda stage, agent, command: agent.heartbeat(),
    "leave": lambda stage, agent, command: agent.leave(command.word(2, "ended by SIGTERM")),
    "disconnect": CoordinatorStage.disconnect,
    "obituary": lambda stage, agent, command: agent.obituary(),
    "deaf": CoordinatorStage.hear_nothing,
    "silent": CoordinatorStage.fall_silent,
    "fenced": CoordinatorStage.fence,
    "stale": CoordinatorStage.lose_lease,
    "reborn": CoordinatorStage.be_reborn,
    "say": CoordinatorStage.say,
    "late": CoordinatorStage.speak_late,
}
