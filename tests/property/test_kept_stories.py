"""Stories that a hunt found, or that it would not find soon, told in short."""

from __future__ import annotations

import pytest

from property.test_coordinator import CoordinatorMachine
from rallypoint.model import AgentPhase, Capability
from rallypoint_coordinator.core.records import RoundEnded


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
