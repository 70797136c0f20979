"""Plays the stories of one agent: what its coordinator, its workers and its clock do, to the real core."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Action, Drain, Exit, Hold, JobSpec, JobState, Keep, Outcome, Run, Stop, StoreHost
from rallypoint_agent.core.effects import Effect
from rallypoint_agent.core.events import (
    AttachRefused,
    ConnectionsRefused,
    Detached,
    LeaseRenewed,
    LeaseStaleReceived,
    SignalReceived,
    TimeAdvanced,
    TimerExpired,
    WorkersStarted,
    WorkersStuck,
)
from support.agent_script import AgentScript, assignment
from transcripts.agent_words import told_effect
from transcripts.language import Command, UnknownCommand, duration_ms

_WHY = {
    "hold": "waiting for nodes",
    "keep": "the records are lost",
    "run": "the round is formed",
    "stop": "rank 5 on b exited with 1",
    "drain": "drained by ops",
    "exit": "all nodes succeeded",
    "something-new": "of a later release",
}
_REFUSALS = {reason.value: Refusal(reason=reason, message="the coordinator says no") for reason in Reason}


class AgentStage:
    def __init__(self) -> None:
        self._script: AgentScript | None = None

    @property
    def script(self) -> AgentScript:
        assert self._script is not None, "a story begins with: agent"
        return self._script

    def do(self, command: Command) -> list[str]:
        verb = command.word(0)
        if verb not in _VERBS:
            raise UnknownCommand(verb)
        effects = _VERBS[verb](self, command)
        return [told_effect(effect) for effect in effects]

    def agent(self, command: Command) -> list[Effect]:
        spec = JobSpec(
            min_nodes=2,
            max_nodes=2,
            max_restarts=3,
            lease_ttl_ms=command.duration_ms("lease", 30_000),
            coordinator_outage_ms=command.duration_ms("outage", 3_600_000),
            store_host=StoreHost(command.options.get("store", "worker").upper()),
        )
        self._script = AgentScript(spec)
        return self._script.effects

    # --- the coordinator

    def attach(self, command: Command) -> list[Effect]:
        return self.script.attach(
            lease_id=command.number("lease", 7),
            cluster_id=command.options.get("cluster", "cluster-1"),
            takes_over=command.options.get("for", ""),
            job_uid=command.options.get("life", "uid"),
        )

    def told(self, command: Command) -> list[Effect]:
        return self.script.direct(_action(command), message=_WHY[command.word(1)])

    def told_again(self, command: Command) -> list[Effect]:
        """The same version once more, whatever it says."""
        self.script.revision -= 1
        return self.told(command)

    def refused(self, command: Command) -> list[Effect]:
        hello_sent_ms = None if command.words[2:] == ["amid-stream"] else self.script.now_ms
        return self.script.feed(AttachRefused(_REFUSALS[command.word(1)], hello_sent_ms))

    def acknowledged(self, command: Command) -> list[Effect]:
        ago_ms = command.duration_ms("sent-ago", 0)
        return self.script.feed(LeaseRenewed(self.script.now_ms - ago_ms))

    def nobody_there(self, command: Command) -> list[Effect]:
        return self.script.feed(ConnectionsRefused(self.script.now_ms))

    # --- the workers

    def started(self, command: Command) -> list[Effect]:
        return self.script.feed(WorkersStarted(self.script.core.state.round, {0: 100, 1: 101}))

    def stuck(self, command: Command) -> list[Effect]:
        return self.script.feed(WorkersStuck(self.script.core.state.round, tuple(map(int, command.words[1:]))))

    def timer_expires(self, command: Command) -> list[Effect]:
        """A timer of local rank 0 in the round that runs, or ran: with its signal and scope."""
        number = signal.Signals[command.word(1)]
        return self.script.feed(TimerExpired(self.script.core.state.round, 0, command.word(2), number))

    def signalled(self, command: Command) -> list[Effect]:
        return self.script.feed(SignalReceived(signal.Signals[command.word(1)]))

    # --- time

    def advance(self, command: Command) -> list[Effect]:
        return self.script.advance(duration_ms(command.word(1)))

    def freeze(self, command: Command) -> list[Effect]:
        """The agent, or its whole machine, is stopped for so long; then it looks."""
        self.script.now_ms += duration_ms(command.word(1))
        return self.script.feed(TimeAdvanced())


def _action(command: Command) -> Action | None:
    number = int(command.word(2, "0"))
    actions: dict[str, Action | None] = {
        "hold": Hold(),
        "keep": Keep(),
        "run": Run(assignment(number, offer_id=command.number("offer", 0), first_rank=command.number("first-rank", 0))),
        "stop": Stop(number, command.duration_ms("grace", 30_000)),
        "drain": Drain(30_000),
        "exit": Exit(Outcome(state=JobState.SUCCEEDED, reason="ALL_SUCCEEDED", message="all nodes succeeded")),
        "something-new": None,
    }
    return actions[command.word(1)]


_VERBS: Mapping[str, Callable[[AgentStage, Command], list[Effect]]] = {
    "agent": AgentStage.agent,
    "attached": AgentStage.attach,
    "told": AgentStage.told,
    "told-again": AgentStage.told_again,
    "refused": AgentStage.refused,
    "acknowledged": AgentStage.acknowledged,
    "contact-lost": lambda stage, command: stage.script.feed(Detached()),
    "connections-refused": AgentStage.nobody_there,
    "lease-stale": lambda stage, command: stage.script.feed(LeaseStaleReceived("lease 7 has ended")),
    "workers-started": AgentStage.started,
    "worker-fails": lambda stage, command: stage.script.fail(exit_code=int(command.word(1, "1"))),
    "timer-expires": AgentStage.timer_expires,
    "workers-succeed": lambda stage, command: stage.script.succeed(),
    "workers-gone": lambda stage, command: stage.script.gone(),
    "workers-stuck": AgentStage.stuck,
    "signal": AgentStage.signalled,
    "advance": AgentStage.advance,
    "frozen": AgentStage.freeze,
}
