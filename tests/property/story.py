"""One long story of a dozen nodes, always the same, and all that it leads to as text."""

from __future__ import annotations

from collections.abc import Iterator

from rallypoint.model import AgentPhase, JobSpec
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.effects import Effect, Output
from rallypoint_coordinator.core.events import Event, Request
from rallypoint_coordinator.store.codec import decode, encode
from rallypoint_coordinator.store.snapshot_codec import encode_snapshot
from support.coordinator_script import Agent, Script

SPEC = JobSpec(min_nodes=6, max_nodes=9, max_restarts=3, last_call_timeout_ms=5_000)
NAMES = [f"node-{letter}" for letter in "kcfalbiejdhg"]


class Telling(Script):
    """Keeps what every step led to: the records' bytes, and whom it spoke to in which order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        super().__init__()

    def keep(self, out: Output) -> None:
        self.lines += [encode(entry).hex() for entry in out.records]
        self.lines += map(_in_short, out.effects)
        super().keep(out)

    def feed(self, event: Event) -> Output:
        self.lines.append(f"< {type(event).__name__}")
        return super().feed(event)


def _in_short(effect: Effect) -> str:
    return f"> {type(effect).__name__} {getattr(effect, 'stream', '')}"


def told() -> Telling:
    """Rounds, a failure on several nodes, losses of every kind, operators, a restart of the coordinator, the end."""
    script = Telling()
    agents = _gathered(script)
    _several_fail(agents)
    _many_are_lost(script, agents)
    script.restart()
    for agent in agents[3:]:
        agent.attach()
    _ask_and_end(script, agents[3:])
    return script


def _gathered(script: Script) -> list[Agent]:
    agents = [
        script.agent(name, SPEC, role=f"role-{number % 3}", local_world_size=1 + number % 4)
        for number, name in enumerate(NAMES)
    ]
    for agent in agents:
        agent.attach()
    script.advance(5_000)
    _obey(agents)
    return agents


def _several_fail(agents: list[Agent]) -> None:
    for agent in agents[2:5]:
        agent.report(AgentPhase.STOPPING)
        agent.fail(exit_code=-9)
    _obey(agents)
    _obey(agents)


def _many_are_lost(script: Script, agents: list[Agent]) -> None:
    agents[0].obituary()
    agents[1].leave()
    agents[2].break_stream()
    _obey(agents[3:7])
    for _ in range(12):
        script.advance(5_000)
        for agent in agents[3:7]:
            agent.heartbeat()


def _ask_and_end(script: Script, agents: list[Agent]) -> None:
    _obey(agents)
    _obey(agents)
    script.ask(Request.RESTART)
    for _ in range(2):
        _obey(agents)
    script.ask(Request.DRAIN, agents[0].node)
    agents[0].leave()
    for _ in range(2):
        _obey(agents[1:])
    for agent in agents[1:]:
        agent.report(AgentPhase.SUCCEEDED)
    script.advance(600_000)


def _obey(agents: list[Agent]) -> None:
    for agent in agents:
        action = type(agent.directive.action).__name__ if agent.directive else ""
        if action == "Run":
            agent.run()
        elif action in ("Hold", "Stop"):
            agent.clear()


def replayed(stored: list[bytes]) -> Cluster:
    cluster = Cluster()
    for revision, data in enumerate(stored, 1):
        cluster.apply(decode(data), revision)
    return cluster


def lines() -> Iterator[str]:
    """What the story led to, then the facts: those that were lived, and those that its records give back."""
    script = told()
    yield from script.lines
    yield encode_snapshot(script.cluster.snapshot()).hex()
    yield encode_snapshot(replayed([encode(entry) for entry in script.journal]).snapshot()).hex()


def main() -> None:
    """What a child process runs."""
    print("\n".join(lines()))
