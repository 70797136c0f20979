"""Random histories of one job's name, life after life: whatever agents may do, in whatever order."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from rallypoint.model import NO_ROUND, AgentPhase, Assignment, Endpoint, JobSpec, Observed, Version
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.events import JobChange, OperatorAsked, Request
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
            self._now_and_then_come_from_a_lost_history,
            lambda agent: self.script.advance(self._rng.choice((100, 6_000, 40_000))),
            self._be_slow,
            lambda agent: self.script.restart(),
            lambda agent: self._retain(),
            lambda agent: self._ask(agent, Request.DRAIN),
            lambda agent: self._ask(agent, Request.RESTART),
            lambda agent: self._ask(agent, Request.UPDATE),
            lambda agent: self._ask(agent, Request.HOLD),
            lambda agent: self._ask(agent, Request.RELEASE),
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

    def _now_and_then_come_from_a_lost_history(self, agent: Agent) -> None:
        if self._rng.random() < 0.4:
            self._come_from_a_lost_history(agent)

    def _come_from_a_lost_history(self, agent: Agent) -> None:
        """Of this cluster's, or of another one; of this life or of one that nobody knows; with a round or without."""
        life, cluster = self.script.cluster.current(JOB), self.script.cluster
        known = life.facts.uid if life is not None else "lost-life"
        rounds = life.facts.next_round if life is not None else 0
        phase = self._rng.choice((AgentPhase.RUNNING, AgentPhase.READY))
        held = self._claim(agent.node, rounds + self._rng.choice((-1, 0, 0, 1))) if self._rng.random() < 0.8 else None
        has_held = held is not None and held.round >= 0
        agent.observed = Observed(
            phase=phase if has_held else AgentPhase.READY,
            round=held.round if held is not None and has_held else NO_ROUND,
            assignment=held if has_held else None,
            offer=agent.next_offer(),
        )
        agent.attach(
            cluster_id=self._rng.choice(("", "lost-cluster")),
            job_uid=self._rng.choice((known, known, known, "lost-life")),
            highest_version=Version(cluster.epoch + self._rng.choice((-1, 0, 1)), len(self.script.journal) + 1),
        )

    def _claim(self, node: str, number: int) -> Assignment:
        """A round of a and b, and sometimes of c."""
        size = 2 + (node == "c")
        return Assignment(
            round=number,
            restart_count=0,
            group_rank=NODES.index(node) % size,
            group_world_size=size,
            first_rank=NODES.index(node) % size,
            world_size=size,
            first_role_rank=0,
            role_world_size=1,
            endpoint=Endpoint("10.0.0.7", 7_000 + number),
        )

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

    def _be_slow(self, agent: Agent) -> None:
        """It does nothing for a minute but say that it is there: longer than anybody has for ending its workers."""
        for _ in range(12):
            self.script.advance(SPEC.heartbeat_interval_ms)
            agent.heartbeat()

    def _obituary(self, agent: Agent) -> None:
        if self.script.cluster.current("job") is not None:
            agent.obituary()

    def _be_reborn(self, agent: Agent) -> None:
        self._agents[agent.node] = agent.reborn()

    def _ask(self, agent: Agent, request: Request) -> object:
        node = agent.node if request is Request.DRAIN else ""
        asked = OperatorAsked(call=1, job=JOB, request=request, by="operator", node=node)
        if request is Request.UPDATE:
            asked = replace(asked, change=self._change())
        elif request is Request.HOLD:
            asked = replace(asked, hold_ms=self._rng.choice((1_000, 30_000, 100_000)))
        return self.script.feed(asked)

    def _change(self) -> JobChange:
        return JobChange(
            min_nodes=self._rng.choice((None, 1, 2, 3)),
            max_nodes=self._rng.choice((None, 2, 3, 4)),
            max_restarts=self._rng.choice((None, 0, 1, 2)),
            labels=self._rng.choice((None, {"team": "vision"}, {})),
        )

    def _retain(self) -> None:
        retention = Retention(lives_max=self._rng.randrange(3), age_max_ms=self._rng.choice((10_000, 10**9)))
        self.script.keep(self.script.cluster.retain(retention, self.script.stamp))
