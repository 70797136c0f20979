from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import JobSpec
from rallypoint_agent.flag_names import flag_of, in_flags


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("job_spec.max_restarts", "--max-restarts"),
        ("job_spec.min_nodes", "--nnodes"),
        ("job_spec.scale_up_delay", "--scale-up"),
        ("node_spec.role", "--role"),
        ("job", "--rdzv-id"),
        ("hello.node", "--node-name"),
        ("local_addr", "--local-addr"),
        ("job_spec.fence_grace", "fence_grace"),
    ],
)
def test_a_field_has_its_flag(field: str, flag: str) -> None:
    assert flag_of(field) == flag


def mismatch(field: str, job: object, agent: object) -> Refusal:
    metadata = {"field": field, "job": str(job), "agent": str(agent)}
    return Refusal(reason=Reason.SPEC_MISMATCH, message="the job has ...", metadata=metadata)


@pytest.mark.parametrize(
    ("field", "job", "agent", "told"),
    [
        ("lease_ttl_ms", 30_000, 1_500, "--lease-ttl is 30s in the job and 1.5s here"),
        ("join_timeout_ms", 31_536_000_000, 0, "--join-timeout is 31536000s in the job and 0s here"),
        ("min_nodes", 2, 3, "the minimum of --nnodes is 2 in the job and 3 here"),
        ("max_nodes", 2, 3, "the maximum of --nnodes is 2 in the job and 3 here"),
        ("max_restarts", 0, 7, "--max-restarts is 0 in the job and 7 here"),
        ("scale_up", JobSpec().scale_up, "ON_RESTART", "--scale-up is immediate in the job and on-restart here"),
        ("scale_up_delay_ms", 1_000, 2_000, "the time of --scale-up is 1s in the job and 2s here"),
        ("store_host", "AGENT", JobSpec().store_host, "--rdzv-conf store is agent in the job and worker here"),
        ("no_restart_exit_codes", (), (3, 4), "--no-restart-exit-codes is none in the job and 3,4 here"),
        ("fence_grace_ms", 3_000, 4_000, "fence_grace is 3s in the job and 4s here"),
        ("join_timeout_ms", "?", "9" * 99, f"--join-timeout is ? in the job and {'9' * 99} here"),
    ],
)
def test_a_mismatch_is_told_in_flags_and_their_values(field: str, job: object, agent: object, told: str) -> None:
    assert in_flags(mismatch(field, job, agent)).message == f"{told}: all agents of a job must agree"


def test_who_holds_the_job_to_its_spec_is_still_told() -> None:
    refusal = mismatch("max_restarts", 0, 7)
    held = "a was heard last, and its lease ends in 12 s"
    told = in_flags(replace(refusal, metadata={**refusal.metadata, "held": held}))
    assert told.message.endswith(f": all agents of a job must agree; {held}")


def test_what_was_agreed_on_is_told_of_a_job_that_was_changed() -> None:
    refusal = mismatch("max_restarts", 0, 7)
    told = in_flags(replace(refusal, metadata={**refusal.metadata, "in_force": "7"}))
    assert told.message == (
        "the job's agents agreed on 0 for --max-restarts, and it is 7 here: give this one theirs; that the job was"
        " changed to 7 since counts for it as well"
    )


def test_what_else_is_refused_and_what_lacks_the_values_stays_as_it_is() -> None:
    for refusal in (
        Refusal(reason=Reason.SPEC_MISMATCH, message="as it is"),
        Refusal(reason=Reason.WRONG_CLUSTER, message="as it is", metadata={"field": "f", "job": "1", "agent": "2"}),
    ):
        assert in_flags(refusal) is refusal
