"""One step of an agent: what it may read, and the effects that it leads to."""

from __future__ import annotations

from dataclasses import field

from rallypoint.values import dataclass
from rallypoint_agent.core.effects import Effect, Report, Say
from rallypoint_agent.core.state import AgentConfig, AgentState


@dataclass(slots=True)
class Step:
    """Everything outside comes in through here. What is changed in the state, later lines see."""

    config: AgentConfig
    state: AgentState
    now_ms: int
    effects: list[Effect] = field(default_factory=list)

    def effect(self, effect: Effect) -> None:
        self.effects.append(effect)

    def report(self, *, can_wait: bool = False) -> None:
        """``can_wait``: nobody decides anything by what has changed since the last report."""
        self.state.told = self.state.observed()
        if not can_wait:
            self.state.tell_at_ms = None
        self.effect(Report(self.state.told, can_wait))

    def say(self, message: str) -> None:
        """Once: what is true still needs no second line."""
        if message != self.state.said:
            self.state.said = message
            self.effect(Say(message))
