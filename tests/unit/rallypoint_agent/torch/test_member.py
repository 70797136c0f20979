"""A torchrun agent's part in a job, with a coordinator that the test plays."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rallypoint.model import AgentPhase, JobSpec, JobState, Observed, Stop, WorkerFailure
from rallypoint_agent.core.effects import FinishKind, SetFence, SetIdentity
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.torch.guarding import WorkersGuard
from rallypoint_agent.torch.member import JobOverError, Member
from support.fake_link import FakeLink


class NoGuard(WorkersGuard):
    """There are no workers to guard."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def fence(self, effect: SetFence) -> None:
        self.calls.append("fence")

    def identify(self, effect: SetIdentity) -> None:
        self.calls.append(f"identify {effect.lease_id}")

    def sweep(self) -> list[int]:
        self.calls.append("sweep")
        return []

    def close(self, *, is_known: bool) -> None:
        self.calls.append(f"close {is_known}")


def nothing(link: FakeLink, observed: Observed) -> None:
    """Leaves every answer to the test."""


def member_of(answer: Callable[[FakeLink, Observed], None]) -> tuple[Member, FakeLink]:
    link = FakeLink(answer)
    config = AgentConfig(
        node="a", local_world_size=1, job_spec=JobSpec(), connect_timeout_ms=60_000, start_ms=boot_ms()
    )
    return Member(link, config, NoGuard()), link


def next_round_whenever_ready(link: FakeLink, observed: Observed) -> None:
    if not observed.phase.may_have_workers and observed.offer is not None:
        link.run_round(observed.round + 1, offer_id=observed.offer.offer_id)


def last(link: FakeLink) -> Observed:
    return link.reports[-1]


def test_a_round_is_what_the_coordinator_says() -> None:
    member, link = member_of(next_round_whenever_ready)
    assert member.next_round().round == 0
    assert last(link).phase is AgentPhase.RUNNING
    assert not member.wants_stop()
    member.close("over")


def test_a_stop_is_wanted_until_torchrun_comes_back() -> None:
    member, link = member_of(next_round_whenever_ready)
    member.next_round()
    link.direct(Stop(0, 30_000))
    assert member.wants_stop()
    assert last(link).phase is AgentPhase.STOPPING
    assert member.next_round().round == 1
    assert not any(observed.failures for observed in link.reports)
    assert not member.wants_stop()
    member.close("over")


def test_a_return_that_nobody_asked_for_is_a_failure() -> None:
    member, link = member_of(next_round_whenever_ready)
    member.next_round()
    assert member.next_round().round == 1
    failed = [observed for observed in link.reports if observed.phase is AgentPhase.FAILED]
    assert "a worker of torchrun's agent on a failed" in failed[0].failures[0].message
    member.close("over")


def test_a_round_that_ends_before_torchrun_hears_of_it_costs_nothing() -> None:
    def answer(link: FakeLink, observed: Observed) -> None:
        if observed.phase is AgentPhase.RUNNING and observed.round == 0:
            link.direct(Stop(0, 30_000))
        else:
            next_round_whenever_ready(link, observed)

    member, link = member_of(answer)
    assert member.next_round().round == 0
    assert member.wants_stop()
    assert member.next_round().round == 1
    assert not any(observed.failures for observed in link.reports)
    member.close("over")


def test_success_is_reported_and_the_outcome_waited_for() -> None:
    def answer(link: FakeLink, observed: Observed) -> None:
        if observed.phase is AgentPhase.SUCCEEDED:
            link.decide(JobState.SUCCEEDED)
        else:
            next_round_whenever_ready(link, observed)

    member, link = member_of(answer)
    member.next_round()
    member.succeeded()
    finish = member.wait_finished(60)
    assert finish is not None
    assert finish.kind is FinishKind.DECIDED
    member.close("over")
    assert link.calls[-2:] == ["leave JOB_DECIDED", "close"]


def test_failures_are_told_as_torchrun_knows_them() -> None:
    member, link = member_of(next_round_whenever_ready)
    member.next_round()
    failure = WorkerFailure(node="a", local_rank=0, rank=3, pid=7, exit_code=-9, message="m", fail_time_ms=1)
    member.failed((failure,))
    assert last(link).phase is AgentPhase.FAILED
    assert last(link).failures == (failure,)
    member.close("over")
    assert "leave LEFT" in link.calls


def test_a_decided_job_has_no_next_round() -> None:
    def answer(link: FakeLink, observed: Observed) -> None:
        if not link.reports[1:]:
            link.decide(JobState.FAILED)

    member, _ = member_of(answer)
    with pytest.raises(JobOverError, match="it is decided"):
        member.next_round()
    member.close("over")


def test_closing_what_never_began_is_harmless() -> None:
    member, link = member_of(nothing)
    member.close("over")
    assert link.calls == []
