"""Random histories of one job's name, life after life: whatever agents may do, in whatever order."""

from __future__ import annotations

from random import Random

from rallypoint.model import AgentPhase, JobSpec
from rallypoint_coordinator.core.cluster import Retention
from rallypoint_coordinator.core.events import OperatorAsked, Request
from support.coordinator_script import JOB, Agent, Script

SPEC = JobSpec(min_nodes=2, max_nodes=3, max_restarts=1, last_call_timeout_ms=5_000, join_timeout_ms=60_000)
NODES = "abcd"


class Walk:
    """One agent for each node, each doing what it likes. The history is ``script.journal``."""

    def __init__(self, rng: Random) -> None:
        self.script = Script()
        self._rng = rng
        self._agents = {node: self.script.agent(node, SPEC, role=f"role-{node}") for node in NODES}
        self._actions = (
            self._attach,
            self._attach,
            self._report,
            self._report,
            *6 * (self._obey,),
            self._fail,
            *2 * (self._be_stuck,),
            lambda agent: agent.break_stream(),
            lambda agent: agent.leave(),
            self._obituary,
            self._be_reborn,
            lambda agent: self.script.advance(self._rng.choice((100, 6_000, 40_000))),
            lambda agent: self.script.restart(),
            lambda agent: self._retain(),
            lambda agent: self._ask(agent, Request.DRAIN),
            lambda agent: self._ask(agent, Request.RESTART),
            lambda agent: self._rng.random() < 0.05 and self._ask(agent, Request.CANCEL),
        )

    def take(self, steps: int) -> Script:
        for _ in range(steps):
            node = self._rng.choice(NODES)
            self._rng.choice(self._actions)(self._agents[node])
        return self.script

    def _attach(self, agent: Agent) -> None:
        if self._rng.random() < 0.5:
            agent.welcome = agent.directive = None
        agent.attach(fresh=agent.welcome is None)

    def _report(self, agent: Agent) -> None:
        agent.report(self._rng.choice(list(AgentPhase)), offer=agent.next_offer())

    def _obey(self, agent: Agent) -> None:
        """Do what a well-behaved agent does; succeed, now and then."""
        if agent.directive is None:
            agent.attach()
        elif agent.told.startswith("Run"):
            agent.report(self._rng.choice((AgentPhase.RUNNING, AgentPhase.SUCCEEDED)))
        else:
            agent.clear()

    def _fail(self, agent: Agent) -> None:
        life = self.script.cluster.current("job")
        if life is not None and life.facts.round is not None and agent.node in life.facts.round.places:
            agent.fail(message="it broke", traceback="Traceback")

    def _be_stuck(self, agent: Agent) -> None:
        """Of what it was told to stop SIGKILL does not end everything; more often than not that is over soon."""
        agent.report(AgentPhase.STOPPING, unkillable_pids=(7,))
        if self._rng.random() < 0.7:
            agent.clear()

    def _obituary(self, agent: Agent) -> None:
        if self.script.cluster.current("job") is not None:
            agent.obituary()

    def _be_reborn(self, agent: Agent) -> None:
        self._agents[agent.node] = agent.reborn()

    def _ask(self, agent: Agent, request: Request) -> object:
        node = agent.node if request is Request.DRAIN else ""
        return self.script.feed(OperatorAsked(call=1, job=JOB, request=request, by="operator", node=node))

    def _retain(self) -> None:
        retention = Retention(lives_max=self._rng.randrange(3), age_max_ms=self._rng.choice((10_000, 10**9)))
        self.script.keep(self.script.cluster.retain(retention, self.script.stamp))
