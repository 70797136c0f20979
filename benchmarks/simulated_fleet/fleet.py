"""A fleet, and the story of its life, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from rallypoint.model import JobSpec, JobState, NodeSpec
from rallypoint_coordinator.core.explain import as_of
from rallypoint_coordinator.core.state import Life
from simulated_fleet.agent import Agent
from simulated_fleet.coordinator import Coordinator
from simulated_fleet.meter import Phase
from simulated_fleet.timeline import Timeline

JOIN_MS = 10_000
"""Agents start, and come back, evenly over this time."""
STEADY_MS = 60_000
PATIENCE_MS = 600_000
SETTLED_MS = 10
"""More than the network takes for what is still under way."""
NODE = NodeSpec(local_world_size=8, hostname="worker.example.org", entrypoint="train.py --config large.yaml")


class Fleet:
    """``jobs`` jobs of ``nodes`` nodes each, and one coordinator."""

    def __init__(self, jobs: int, nodes: int) -> None:
        self.jobs, self.nodes = jobs, nodes
        self.timeline = Timeline()
        self.coordinator = Coordinator(self.timeline)
        self.agents: list[Agent] = []
        self.replay_s = 0.0
        self._spec = JobSpec(min_nodes=max(1, nodes // 2), max_nodes=nodes, max_restarts=100)
        self._round = -1
        self._size = nodes

    def story(self) -> Iterator[Phase]:
        """Each phase, as soon as it is over."""
        for name, do in (
            ("all join", self._join),
            ("a minute passes", partial(self.timeline.run_for, STEADY_MS)),
            ("a worker fails", partial(self._re_form, Agent.fail_worker)),
            ("a node is lost", partial(self._re_form, Agent.lose_power, -1)),
            ("a node joins", self._one_joins),
            ("a node leaves", partial(self._re_form, Agent.leave, -1)),
            ("coordinator restarts", self._restart),
            ("all succeed", self._succeed),
        ):
            self.coordinator.phase = phase = Phase(name)
            began_ms = self.timeline.now_ms
            do()
            phase.virtual_ms = self.timeline.now_ms - began_ms
            yield phase

    @property
    def present(self) -> list[Agent]:
        return [agent for agent in self.agents if not agent.finished]

    # --- what happens in it

    def _join(self) -> None:
        self.coordinator.start()
        total = self.jobs * self.nodes
        for number in range(total):
            self.timeline.at(number * JOIN_MS // total, partial(self._new_agent, number))
        self._wait_for_next_round()

    def _new_agent(self, number: int) -> None:
        job = f"train-{number % self.jobs:04}"
        agent = Agent(number, job, self._spec, NODE, self.coordinator, self.timeline)
        self.agents.append(agent)
        agent.start()

    def _re_form(self, do: Callable[[Agent], None], more_nodes: int = 0) -> None:
        """Something happens to one node of each job, and ends its round."""
        first = {agent.job: agent for agent in reversed(self.present)}
        for agent in first.values():
            do(agent)
        self._size += more_nodes
        self._wait_for_next_round()

    def _one_joins(self) -> None:
        for number in range(len(self.agents), len(self.agents) + self.jobs):
            self._new_agent(number)
        self._size += 1
        self._wait_for_next_round()

    def _restart(self) -> None:
        agents = self.present
        self.replay_s = self.coordinator.restart()
        for index, agent in enumerate(agents):
            self.timeline.after(index * JOIN_MS // len(agents), agent.attach)
        self.timeline.run_for(JOIN_MS + SETTLED_MS)

    def _succeed(self) -> None:
        for agent in self.present:
            agent.succeed()
        self.timeline.run_for(SETTLED_MS)
        assert not self.present, "some agents did not hear that their job is over"
        assert all(life.facts.state is JobState.SUCCEEDED for life in self._lives())

    # --- waiting for it

    def _lives(self) -> list[Life]:
        return list(self.coordinator.cluster.lives.values())

    def _wait_for_next_round(self) -> None:
        """Until every job has its next round, of all its nodes, and all workers of it run."""
        self._round += 1
        end_ms = self.timeline.now_ms + PATIENCE_MS
        self.timeline.run_until(lambda: self._all_run() or self.timeline.now_ms > end_ms)
        assert self._all_run(), (
            f"round {self._round}: {[as_of(life, self.timeline.now_ms) for life in self._lives()][:3]}"
        )
        self.timeline.run_for(SETTLED_MS)

    def _all_run(self) -> bool:
        lives = self.coordinator.cluster.lives
        return len(lives) == self.jobs and all(map(self._runs, lives.values()))

    def _runs(self, life: Life) -> bool:
        current = life.facts.round
        runs = life.facts.state is JobState.RUNNING and not life.watch.starting
        return runs and current is not None and (current.number, len(current.places)) == (self._round, self._size)
