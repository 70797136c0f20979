"""Stories that a hunt found, or that it would not find soon, told in short."""

from __future__ import annotations

import pytest

from property.test_agent import AgentMachine
from property.test_coordinator import CoordinatorMachine
from rallypoint.model import AgentPhase, Capability
from rallypoint_coordinator.core.records import JobDecided, NodeExpelled, NodeReadmitted, RoundAdopted, RoundEnded


@pytest.fixture
def machine() -> CoordinatorMachine:
    made = CoordinatorMachine()
    made.gather(spec="pair", sizes=[1] * 4, lacking=[frozenset(), frozenset(Capability), frozenset(), frozenset()])
    return made


def attach(machine: CoordinatorMachine, nodes: str) -> None:
    for node in nodes:
        machine.attach_again(node)


def obey(machine: CoordinatorMachine, nodes: str) -> None:
    for node in nodes:
        machine.obey(node)


def told_failures(machine: CoordinatorMachine) -> list[tuple[str, int]]:
    """Of the rounds that ended: where something failed, and with which exit code."""
    ends = [entry.record for entry in machine.world.journal if isinstance(entry.record, RoundEnded)]
    named = [failure for end in ends for failure in (end.culprit, *end.others) if failure is not None]
    return [(failure.node, failure.exit_code) for failure in named]


def test_what_failed_before_a_recovery_is_the_cause_if_that_round_is_adopted_again(machine: CoordinatorMachine) -> None:
    """Its agent does not name the failure again."""
    attach(machine, "acd")
    obey(machine, "ac")
    machine.fail("a", -9, AgentPhase.FAILED)
    machine.be_stuck_in_any_phase("a", AgentPhase.FAILED)
    machine.come_from_a_lost_history("d", "", 0)
    attach(machine, "ac")
    obey(machine, "acac")
    assert told_failures(machine) == [("a", -9)]
    machine.teardown()


def test_what_failed_in_another_round_of_that_number_is_not(machine: CoordinatorMachine) -> None:
    attach(machine, "a")
    machine.leave("a")
    machine.the_journal_is_backed_up()
    attach(machine, "cd")
    obey(machine, "cd")
    machine.records_are_lost(0, silent=True)
    machine.fleet.reborn("a").begin_anew()
    attach(machine, "b")
    obey(machine, "ab")
    machine.fail("a", 3, AgentPhase.FAILED)
    machine.obituary("b")
    attach(machine, "cd")
    machine.fail("c", 1, AgentPhase.FAILED)
    obey(machine, "d")
    assert told_failures(machine) == [("c", 1)]
    machine.teardown()


def record_kinds(machine: CoordinatorMachine) -> set[type]:
    return {type(entry.record) for entry in machine.world.journal}


def test_a_round_that_never_was_ends_no_quarantine(machine: CoordinatorMachine) -> None:
    """A later round would prove that nothing is stuck any more, but nobody who is attached can have had one."""
    attach(machine, "ab")
    obey(machine, "ab")
    machine.be_stuck("a", (7, 8))
    machine.say_what_cannot_be("a", AgentPhase.STOPPING, rounds=2, epochs=0, revisions=0, offers=0)
    assert NodeExpelled in record_kinds(machine)
    assert NodeReadmitted not in record_kinds(machine)
    machine.teardown()


def test_a_round_of_a_lost_history_ends_a_quarantine(machine: CoordinatorMachine) -> None:
    """It was readmitted in that history, as it had a place in a round that the backup does not know of."""
    attach(machine, "ac")
    obey(machine, "ac")
    machine.be_stuck("a", (7,))
    machine.the_journal_is_backed_up()
    machine.say("a", AgentPhase.READY)
    obey(machine, "acacac")
    machine.records_are_lost(0, silent=True)
    attach(machine, "ac")
    assert record_kinds(machine) >= {NodeExpelled, NodeReadmitted, RoundAdopted}
    machine.teardown()


def test_who_was_given_up_is_not_lost_and_may_have_noticed_a_loss() -> None:
    """All fall silent. The others' leases end first; that of the one that failed outlives its time to stop."""
    machine = CoordinatorMachine()
    lacking = [
        frozenset({Capability.SELF_FENCES}),
        frozenset[Capability](),
        frozenset[Capability](),
        frozenset[Capability](),
    ]
    machine.gather(spec="elastic", sizes=[1] * 4, lacking=lacking)
    machine.everybody_obeys_for_a_while(2)
    machine.fail("a", -15, AgentPhase.STOPPING)
    machine.teardown()


def test_who_comes_with_another_spec_does_not_end_what_an_operator_holds() -> None:
    """All nodes had left; the hold is over, but nobody has looked yet."""
    machine = CoordinatorMachine()
    machine.gather(spec="elastic", sizes=[1] * 4, lacking=[frozenset()] * 4)
    machine.everybody_obeys()
    machine.hold(1)
    machine.begin_anew_with_another_spec({"a"}, ended=True, restarts=0)
    assert [entry.job_uid for entry in machine.world.journal if isinstance(entry.record, JobDecided)] == []
    machine.teardown()


def test_a_hold_that_is_made_longer_after_the_wall_clock_went_back_ends_after_it_begins() -> None:
    machine = CoordinatorMachine()
    machine.gather(spec="elastic", sizes=[1] * 4, lacking=[frozenset()] * 4)
    machine.everybody_obeys()
    machine.the_clock_jumps(31_029, back=False)
    machine.hold(1)
    machine.the_coordinator_restarts(None, 0)
    machine.hold(20_000)
    machine.teardown()


def test_an_agent_that_is_stuck_and_has_no_lease_gives_up_in_the_end() -> None:
    machine = AgentMachine()
    machine.begin(spec="no outage", ports=True)
    machine.a_round_gets_stuck()
    machine.be_stale()
    ends: list[bool] = []
    for ms in (19_999, 1):
        machine.time_passes(ms)
        ends.append(machine.world.truth.finish is not None)
    assert ends == [False, True]
    machine.teardown()
