"""The coordinator's core against every event and its stale, repeated, late and impossible forms."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from property.fleet import Fleet, FleetAgent
from property.profiles import CHOSEN, PATIENT
from property.world import Crash, World
from rallypoint.model import AgentPhase, Capability, EndpointOffer, JobSpec, NodeSpec, ScaleUp, Version, WorkerStatus
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.events import (
    AgentObserved,
    GoneReported,
    JobChange,
    OperatorAsked,
    Request,
    StreamClosed,
)
from support.coordinator_script import JOB, failure

NODES = "abcd"
SPECS = {
    "pair": JobSpec(min_nodes=2, max_nodes=2, max_restarts=1),
    "elastic": JobSpec(min_nodes=1, max_nodes=3, max_restarts=2, last_call_timeout_ms=0, no_restart_exit_codes=(3,)),
    "waits": JobSpec(min_nodes=2, max_nodes=3, max_restarts=0, rejoin_wait_ms=20_000, last_call_timeout_ms=5_000),
    "grows later": JobSpec(max_nodes=4, max_restarts=3, scale_up=ScaleUp.AFTER, scale_up_delay_ms=9_000),
    "grows if it must": JobSpec(min_nodes=3, max_nodes=4, scale_up=ScaleUp.ON_RESTART, join_timeout_ms=50_000),
}

nodes = st.sampled_from(NODES)
phases = st.sampled_from(AgentPhase)
shifts = st.sampled_from((-1_000_000, -2, -1, 0, 1, 2, 1_000_000))
durations_ms = st.sampled_from((1, 999, 1_000, 6_000, 31_029, 31_030, 50_000, 700_000))
exit_codes = st.sampled_from((-15, -9, 1, 3))
lacks = st.sampled_from(
    (
        frozenset[Capability](),
        frozenset[Capability](),
        frozenset(Capability),
        *map(frozenset, ([lacking] for lacking in Capability)),
    )
)
"""What agents do not promise."""
changes = st.builds(
    JobChange,
    min_nodes=st.none() | st.integers(1, 3),
    max_nodes=st.none() | st.integers(1, 4),
    max_restarts=st.none() | st.integers(0, 3),
    labels=st.none() | st.dictionaries(st.sampled_from("kl"), st.sampled_from("vw"), max_size=2),
    etag=st.sampled_from(("", "", "", "old")),
)


class CoordinatorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(
        spec=st.sampled_from(sorted(SPECS)),
        sizes=st.lists(st.integers(1, 3), min_size=4, max_size=4),
        lacking=st.lists(lacks, min_size=4, max_size=4),
    )
    def gather(self, spec: str, sizes: list[int], lacking: list[frozenset[Capability]]) -> None:
        by_node = dict(zip(NODES, lacking, strict=True))
        self.fleet = Fleet(self.world, SPECS[spec], dict(zip(NODES, sizes, strict=True)), by_node)

    def teardown(self) -> None:
        self.world.crash = None
        if not self.world.is_broken:
            self.world.fall_silent()

    # --- what is asked of agents, and done

    @rule()
    def everybody_obeys(self) -> None:
        for node in NODES:
            self.fleet.obey(node)

    @rule(times=st.integers(2, 4))
    def everybody_obeys_for_a_while(self, times: int) -> None:
        for _ in range(times):
            self.everybody_obeys()

    @rule(node=nodes)
    def obey(self, node: str) -> None:
        self.fleet.obey(node)

    @rule(node=nodes, code=exit_codes)
    def a_round_fails_and_another_follows(self, node: str, code: int) -> None:
        self.fail(node, code, AgentPhase.STOPPING)
        self.everybody_obeys_for_a_while(2)

    @rule(node=nodes, code=exit_codes, phase=st.sampled_from((AgentPhase.FAILED, AgentPhase.STOPPING)))
    def fail(self, node: str, code: int, phase: AgentPhase) -> None:
        agent = self.fleet[node]
        failed = failure(node, rank=1, exit_code=code, fail_clock_ms=max(0, agent.shown(-100 - code)))
        agent.fail_with((failed,), phase)

    @rule(node=nodes, pids=st.sampled_from(((7,), (7, 8))))
    def be_stuck(self, node: str, pids: tuple[int, ...]) -> None:
        """Not even SIGKILL ends what is left of its newest round."""
        self.fleet[node].report(AgentPhase.STOPPING, unkillable_pids=pids)

    @rule(node=nodes, phase=phases)
    def be_stuck_in_any_phase(self, node: str, phase: AgentPhase) -> None:
        self.fleet[node].report(phase, unkillable_pids=(7,))

    @rule(node=nodes)
    def begin_to_start(self, node: str) -> None:
        workers = (WorkerStatus(local_rank=0, rank=0),)
        self.fleet[node].report(AgentPhase.RUNNING, workers=workers)

    @rule(node=nodes)
    def succeed(self, node: str) -> None:
        self.fleet[node].succeed()

    @rule()
    def everybody_succeeds(self) -> None:
        for node in NODES:
            self.fleet[node].succeed()

    @rule(node=nodes)
    def heartbeat(self, node: str) -> None:
        self.fleet[node].heartbeat()

    @rule(node=nodes)
    def leave(self, node: str) -> None:
        self.fleet[node].leave()

    @rule(node=nodes)
    def die(self, node: str) -> None:
        """The agent is gone, its keeper says so, and another begins in its place."""
        agent = self.fleet[node]
        if agent.welcome is not None:
            self.bury(agent)
        self.fleet.reborn(node).attach()

    @rule(node=nodes)
    def attach_again(self, node: str) -> None:
        self.fleet[node].attach()

    @rule(node=nodes)
    def break_stream(self, node: str) -> None:
        self.fleet[node].break_stream()

    # --- what agents do beyond that

    @rule(node=nodes, phase=phases)
    def say(self, node: str, phase: AgentPhase) -> None:
        self.fleet[node].report(phase)

    @rule(node=nodes, phase=phases, rounds=shifts, epochs=shifts, revisions=shifts, offers=shifts)
    def say_what_cannot_be(
        self, node: str, phase: AgentPhase, rounds: int, epochs: int, revisions: int, offers: int
    ) -> None:
        agent = self.fleet[node]
        seen = agent.directive.version if agent.directive else Version(0, 0)
        offer = agent.next_offer()
        agent.report(
            phase,
            failure(node, exit_code=-11, after_stop=rounds == 0),
            round=max(-1, agent.observed.round + rounds),
            version=Version(max(0, seen.epoch + epochs), max(0, seen.revision + revisions)),
            offer=EndpointOffer(max(0, offer.offer_id + offers), offer.endpoint),
        )

    @rule(node=nodes, phase=phases, revisions=st.integers(-10, 0))
    def say_as_of_then(self, node: str, phase: AgentPhase, revisions: int) -> None:
        """A report that crossed a directive on the way."""
        agent = self.fleet[node]
        if agent.directive is not None:
            epoch, revision = agent.directive.version
            agent.report(phase, round=agent.observed.round, version=Version(epoch, max(0, revision + revisions)))

    @rule(node=nodes, lease_shift=shifts, stream_shift=shifts)
    def speak_for_another(self, node: str, lease_shift: int, stream_shift: int) -> None:
        agent = self.fleet[node]
        lease_id, stream = agent.lease_id + lease_shift, agent.stream + stream_shift
        self.world.feed(AgentObserved(stream=stream, lease_id=lease_id, seq=-1, observed=agent.observed))

    @rule(node=nodes, phase=phases)
    def speak_on_the_stream_before(self, node: str, phase: AgentPhase) -> None:
        """It attached again; what was still on the old stream arrives after that."""
        agent = self.fleet[node]
        lease_id, stream = agent.lease_id, agent.stream
        agent.attach()
        late = replace(agent.observed, phase=phase)
        self.world.feed(AgentObserved(stream=stream, lease_id=lease_id, seq=9, observed=late))

    @rule(node=nodes, fresh=st.booleans(), phase=phases)
    def attach_with(self, node: str, fresh: bool, phase: AgentPhase) -> None:
        agent = self.fleet[node]
        agent.observed = replace(agent.observed, phase=phase)
        agent.attach(fresh=fresh)

    @rule(node=nodes, what=st.sampled_from(("cluster", "life", "lease", "version", "spec", "attach_seq")))
    def attach_wrongly(self, node: str, what: str) -> None:
        agent, stamp = self.fleet[node], self.world.stamp
        wrong: dict[str, object] = {
            "cluster": {"cluster_id": "elsewhere"},
            "life": {"job_uid": "unheard-of"},
            "lease": {"lease_id": agent.lease_id + 1},
            "version": {"highest_version": Version(self.world.cluster.epoch, stamp.revision + 1)},
            "spec": {"job_spec": replace(agent.spec, max_restarts=9)},
            "attach_seq": {"attach_seq": 0},
        }
        agent.attach(**wrong[what])  # type: ignore[arg-type]

    @rule(node=nodes, size=st.integers(1, 3))
    def begin_anew(self, node: str, size: int) -> None:
        agent = self.fleet[node]
        agent.node_spec = NodeSpec(local_world_size=size)
        agent.begin_anew()

    @rule(nodes=st.sets(nodes, min_size=1), ended=st.booleans(), restarts=st.integers(0, 3))
    def begin_anew_with_another_spec(self, nodes: set[str], ended: bool, restarts: int) -> None:
        """As one who ends a run on its nodes, or on some, and begins it again with another command line."""
        if ended:
            for node in NODES:
                self.fleet[node].leave()
        for node in sorted(nodes):
            agent = self.fleet.reborn(node)
            agent.spec = replace(agent.spec, max_restarts=restarts)
            agent.begin_anew()

    # --- what comes again, late, or from elsewhere

    @precondition(lambda self: self.world.history)
    @rule(index=st.integers(0, 10_000))
    def repeat(self, index: int) -> None:
        self.world.repeat(index)

    @rule(stream=st.integers(-1, 200))
    def close_any_stream(self, stream: int) -> None:
        self.world.feed(StreamClosed(stream=stream))

    @rule(
        node=nodes,
        job=st.sampled_from((JOB, "other")),
        uid=st.sampled_from(("uid0", "uid1", "uid9")),
        lease_id=st.integers(-1, 60),
        own=st.booleans(),
    )
    def bury_any(self, node: str, job: str, uid: str, lease_id: int, own: bool) -> None:
        """An obituary of an old lease, of another's, of one that never was."""
        agent = self.fleet[node]
        found = agent.lease_id if own else lease_id
        self.world.feed(
            GoneReported(call=1, job=job, job_uid=uid, lease_id=found, incarnation=agent.incarnation, message="")
        )

    @rule(node=nodes)
    def obituary(self, node: str) -> None:
        if self.fleet[node].welcome is not None:
            self.bury(self.fleet[node])

    def bury(self, agent: FleetAgent) -> None:
        assert agent.welcome is not None
        uid, lease_id = agent.welcome.job_uid, agent.lease_id
        self.world.feed(
            GoneReported(call=1, job=JOB, job_uid=uid, lease_id=lease_id, incarnation=agent.incarnation, message="died")
        )

    # --- operators

    @rule(
        request=st.sampled_from((Request.RESTART, Request.RESTART, Request.DRAIN, Request.DRAIN, Request.CANCEL)),
        node=st.sampled_from((*NODES, "nowhere")),
        job=st.sampled_from((JOB, JOB, JOB, "other")),
    )
    def ask_for(self, request: Request, node: str, job: str) -> None:
        self.world.feed(OperatorAsked(call=2, job=job, request=request, by="ops", node=node))

    @rule(change=changes)
    def change_the_job(self, change: JobChange) -> None:
        self.world.feed(OperatorAsked(call=2, job=JOB, request=Request.UPDATE, by="ops", change=change))

    @rule(hold_ms=st.sampled_from((1, 20_000, 100_000)))
    def hold(self, hold_ms: int) -> None:
        self.world.feed(OperatorAsked(call=2, job=JOB, request=Request.HOLD, by="ops", hold_ms=hold_ms))

    @rule()
    def release(self) -> None:
        self.world.feed(OperatorAsked(call=2, job=JOB, request=Request.RELEASE, by="ops"))

    # --- time, and the coordinator's own fate

    @rule(ms=durations_ms)
    def time_passes(self, ms: int) -> None:
        self.world.advance(ms)

    @rule(seconds=st.sampled_from((5, 45, 90)))
    def everybody_heartbeats_as_time_passes(self, seconds: int) -> None:
        for _ in range(0, seconds, 5):
            self.world.advance(5_000)
            for node in NODES:
                self.fleet[node].heartbeat()

    @rule(ms=durations_ms, back=st.booleans())
    def the_clock_jumps(self, ms: int, back: bool) -> None:
        self.world.jump(-ms if back else ms)

    @rule(ms=st.integers(-(10**12), 10**12))
    def the_wall_clock_jumps(self, ms: int) -> None:
        self.world.wall_offset_ms = ms

    @rule(fleet=st.sampled_from((1, 5_678, 8_765, 100_000)))
    def other_jobs_come_or_go(self, fleet: int) -> None:
        self.world.fleet = fleet

    @rule(snapshot=st.none() | st.floats(0, 1), clock_ms=st.none() | st.integers(0, 10**7))
    def the_coordinator_restarts(self, snapshot: float | None, clock_ms: int | None) -> None:
        """Perhaps on another machine, whose clock says something else."""
        self.world.now_ms = self.world.now_ms if clock_ms is None else clock_ms
        self.world.restart(snapshot)

    @rule()
    def the_journal_is_backed_up(self) -> None:
        self.world.back_up()

    @rule(back=st.integers(0, 4), silent=st.booleans())
    def records_are_lost(self, back: int, silent: bool) -> None:
        """And most of the agents find the coordinator again, each in its turn."""
        self.world.lose_records()
        for node in NODES[:back]:
            self.fleet[node].attach()
        if not silent:
            self.everybody_obeys_for_a_while(2)

    @rule(node=nodes, cluster=st.sampled_from(("", "elsewhere", "cluster-1")), epochs=st.integers(-1, 2))
    def come_from_a_lost_history(self, node: str, cluster: str, epochs: int) -> None:
        """With whatever it holds."""
        version = Version(max(0, self.world.cluster.epoch + epochs), self.world.stamp.revision + 1)
        self.fleet[node].attach(cluster_id=cluster, highest_version=version)

    @rule(crash=st.sampled_from(Crash))
    def the_next_step_is_its_last(self, crash: Crash) -> None:
        self.world.crash = crash

    @rule(lives=st.integers(0, 2), nodes=st.sampled_from((0, 3, 100)), age_ms=st.sampled_from((0, 10**12)))
    def retain(self, lives: int, nodes: int, age_ms: int) -> None:
        self.world.retain(Retention(lives_max=lives, nodes_max=nodes, age_max_ms=age_ms))


TestCoordinator = CoordinatorMachine.TestCase
TestCoordinator.settings = CHOSEN
TestCoordinator.pytestmark = [PATIENT]  # type: ignore[attr-defined]
