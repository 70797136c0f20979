"""The agent's core against every event and its stale, repeated, late and impossible forms."""

from __future__ import annotations

import signal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from property.agent_world import AgentWorld
from property.profiles import CHOSEN, PATIENT
from rallypoint.errors import Reason, Refusal
from rallypoint.model import (
    Action,
    Drain,
    Exit,
    Hold,
    JobSpec,
    JobState,
    Outcome,
    Run,
    Stop,
    StoreHost,
    Version,
    WatchdogStatus,
    WorkerState,
)
from rallypoint_agent.core.events import (
    AttachRefused,
    ConnectionsRefused,
    Detached,
    DirectiveReceived,
    GroupMonitored,
    LeaseRenewed,
    LeaseStaleReceived,
    PortHeld,
    SignalReceived,
    TimeAdvanced,
    TimerExpired,
    WatchdogChanged,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)
from support.agent_script import assignment, own_failure

SPECS = {
    "usual": JobSpec(min_nodes=2, max_nodes=2, max_restarts=3),
    "agent's store": JobSpec(max_restarts=3, store_host=StoreHost.AGENT),
    "no outage": JobSpec(coordinator_outage_ms=0, join_timeout_ms=20_000, exit_barrier_timeout_ms=10_000),
}
REPEATABLE = (
    DirectiveReceived,
    LeaseRenewed,
    ConnectionsRefused,
    WorkersStarted,
    GroupMonitored,
    WorkersGone,
    WorkersStuck,
    PortHeld,
)
OUTCOME = Outcome(state=JobState.SUCCEEDED, reason="ALL_SUCCEEDED", message="all did")

states = st.sampled_from(WorkerState)
round_shifts = st.sampled_from((-2, -1, 0, 1, 5))
ago_ms = st.sampled_from((0, 1, 4_000, 25_999, 26_000, 29_000, 100_000))
durations_ms = st.sampled_from((1, 5_000, 25_999, 26_000, 60_000))
names = st.sampled_from(("hold", "run", "run", "run", "stop", "stop", "hold", "drain", "exit", "unknown"))


class AgentMachine(RuleBasedStateMachine):
    @initialize(spec=st.sampled_from(sorted(SPECS)), ports=st.sampled_from((True, True, False, None)))
    def begin(self, spec: str, ports: bool | None) -> None:
        self.world = AgentWorld(SPECS[spec], ports=ports)

    def begin_anew_if_over(self) -> None:
        """Another incarnation."""
        if self.world.truth.finish is not None:
            self.world = AgentWorld(self.world.truth.spec, ports=self.world.ports)

    def teardown(self) -> None:
        if hasattr(self, "world") and not self.world.is_broken:
            self.world.be_left_alone()

    @property
    def round(self) -> int:
        return self.world.truth.last_round

    def action(self, name: str, number: int) -> Action | None:
        if name == "run":
            return Run(assignment(number, offer_id=self.world.truth.offer_id if number % 2 else 0))
        plain: dict[str, Action] = {
            "hold": Hold(),
            "stop": Stop(number, 5_000),
            "drain": Drain(5_000),
            "exit": Exit(OUTCOME),
        }
        return plain.get(name)

    # --- the coordinator, as it should be

    @rule(sent_ago_ms=ago_ms, new_lease=st.booleans())
    def attach(self, sent_ago_ms: int, new_lease: bool) -> None:
        self.begin_anew_if_over()
        self.world.attach(sent_ago_ms, new_lease=new_lease)

    @rule()
    def a_round_runs(self) -> None:
        self.begin_anew_if_over()
        self.world.attach(0, new_lease=False)
        self.world.direct(Run(assignment(self.round + 1)))
        self.world.start()

    @rule(state=st.sampled_from((WorkerState.FAILED, WorkerState.SUCCEEDED)))
    def a_round_runs_and_ends(self, state: WorkerState) -> None:
        self.a_round_runs()
        self.world.monitor(state)
        self.world.end_workers()

    @rule()
    def a_round_runs_and_is_stopped(self) -> None:
        self.a_round_runs()
        self.world.direct(Stop(self.round, 5_000))

    @rule(name=names)
    def direct(self, name: str) -> None:
        self.world.direct(self.action(name, self.round + (name == "run")))

    @rule(name=st.sampled_from(("drain", "exit")))
    def be_told_to_go(self, name: str) -> None:
        self.world.attach(0, new_lease=False)
        self.world.direct(self.action(name, self.round))

    @rule(sent_ago_ms=ago_ms)
    def renew(self, sent_ago_ms: int) -> None:
        self.world.feed(LeaseRenewed(self.world.now_ms - sent_ago_ms))

    @rule()
    def be_stale(self) -> None:
        self.world.feed(LeaseStaleReceived("it ended"))

    @rule(
        reason=st.sampled_from((Reason.NODE_NAME_BUSY, Reason.RECOVERING, Reason.FENCED, Reason.SPEC_MISMATCH)),
        ago_ms=st.none() | st.integers(0, 5_000),
    )
    def be_refused(self, reason: Reason, ago_ms: int | None) -> None:
        sent_ms = None if ago_ms is None else max(0, self.world.now_ms - ago_ms)
        self.world.feed(AttachRefused(Refusal(reason=reason, message="no"), sent_ms))

    @rule()
    def lose_contact(self) -> None:
        self.world.feed(Detached())

    # --- the coordinator's words, old, repeated, from elsewhere

    @rule(name=names, round_shift=round_shifts, epochs=st.sampled_from((-1, 0, 0, 1)), revisions=st.integers(-4, 4))
    def direct_out_of_order(self, name: str, round_shift: int, epochs: int, revisions: int) -> None:
        epoch, revision = self.world.version
        version = Version(max(0, epoch + epochs), max(0, revision + revisions))
        self.world.direct(self.action(name, self.round + round_shift), version=version)

    @rule(name=names)
    def direct_another_life(self, name: str) -> None:
        self.world.direct(self.action(name, self.round + 1), job_uid="other")

    @rule()
    def the_coordinator_restarts(self) -> None:
        self.world.version = Version(self.world.version.epoch + 1, self.world.version.revision)

    @rule(sent_ago_ms=ago_ms)
    def find_every_connection_refused(self, sent_ago_ms: int) -> None:
        self.world.feed(ConnectionsRefused(self.world.now_ms - sent_ago_ms))

    # --- the shell

    @rule()
    def workers_started(self) -> None:
        self.world.start()

    @rule(state=states)
    def monitor(self, state: WorkerState) -> None:
        self.world.monitor(state)

    @rule(late_failure=st.booleans())
    def workers_gone(self, late_failure: bool) -> None:
        self.world.end_workers(*[own_failure(exit_code=-15, after_stop=True)] * late_failure)

    @rule(pids=st.sampled_from(((101,), (100, 101), (4711,))))
    def workers_stuck(self, pids: tuple[int, ...]) -> None:
        self.world.get_stuck(*pids)

    @rule()
    def a_round_gets_stuck(self) -> None:
        self.a_round_runs_and_is_stopped()
        self.world.get_stuck(101)

    @rule(round_shift=round_shifts.filter(bool), state=states)
    def news_of_another_round(self, round_shift: int, state: WorkerState) -> None:
        number = self.round + round_shift
        self.world.feed(WorkersStarted(number, {0: 1, 1: 2}))
        self.world.feed(GroupMonitored(number, state, (own_failure(),)))
        self.world.feed(WorkersStuck(number, (101,)))
        self.world.feed(WorkersGone(number, (own_failure(),)))

    @rule(held=st.booleans(), named=st.booleans())
    def port_held(self, held: bool, named: bool) -> None:
        self.world.answer_port(self.world.truth.offer_id, held=held, named=named)

    @rule(shift=st.sampled_from((-1, 1, 100)))
    def another_port_held(self, shift: int) -> None:
        self.world.feed(PortHeld(self.world.truth.offer_id + shift, None))

    @rule()
    def watchdog_changed(self) -> None:
        self.world.feed(WatchdogChanged(WatchdogStatus(enabled=True, last_expiry=f"at {self.world.now_ms}")))

    @rule(shift=st.sampled_from((-1, 0, 1)), local_rank=st.integers(0, 3))
    def timer_expired(self, shift: int, local_rank: int) -> None:
        number = self.world.truth.last_round + shift
        self.world.feed(TimerExpired(number, local_rank, "step", signal.SIGKILL))

    @rule(number=st.sampled_from((signal.SIGTERM, signal.SIGINT)))
    def be_signalled(self, number: int) -> None:
        self.world.feed(SignalReceived(number))

    @rule(index=st.integers(0, 10_000))
    def repeat(self, index: int) -> None:
        """What was said once is said again; only of what may be: nobody is welcomed twice to one lease."""
        said = [event for event in self.world.history if isinstance(event, REPEATABLE)]
        if said:
            self.world.feed(said[index % len(said)])

    # --- time

    @rule(ms=durations_ms)
    def time_passes(self, ms: int) -> None:
        self.world.advance(ms)

    @rule(seconds=st.sampled_from((5, 60)))
    def time_passes_in_contact(self, seconds: int) -> None:
        for _ in range(0, seconds, 5):
            self.world.advance(5_000)
            self.world.feed(LeaseRenewed(self.world.now_ms))

    @rule(ms=durations_ms, back=st.booleans())
    def the_clock_jumps(self, ms: int, back: bool) -> None:
        """The machine was suspended; or the clock went back, which it never should."""
        self.world.now_ms = max(0, self.world.now_ms + (-ms if back else ms))

    @rule()
    def look_without_need(self) -> None:
        self.world.feed(TimeAdvanced())


TestAgent = AgentMachine.TestCase
TestAgent.settings = CHOSEN
TestAgent.pytestmark = [PATIENT]  # type: ignore[attr-defined]
