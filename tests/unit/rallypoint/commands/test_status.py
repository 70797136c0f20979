"""The text of ``rallypoint status``, to the letter."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint.commands.output import in_colour
from rallypoint.commands.status import NODES_SHOWN, status_text
from rallypoint.limits import INT32_MAX
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2

SUSPECT = "suspect: its stream broke or its heartbeats are late"
NOW_S = 1_800_000_000
NOW = Timestamp(seconds=NOW_S)


def ago(seconds: int) -> Timestamp:
    return Timestamp(seconds=NOW_S - seconds)


def waiting_job() -> pb.Job:
    return pb.Job(
        name="jobs/train",
        uid="5f3c",
        state=types_pb2.JOB_STATE_GATHERING,
        reason="WAITING_FOR_NODES",
        message="waiting: 0 of 2 nodes, 41 s left",
        spec=types_pb2.JobSpec(min_nodes=2, max_nodes=2, max_restarts=3),
        create_time=ago(100),
        state_time=ago(100),
        observe_time=NOW,
    )


def running_job() -> pb.Job:
    job = waiting_job()
    job.MergeFrom(
        pb.Job(
            state=types_pb2.JOB_STATE_RUNNING,
            reason="ROUND_RUNS",
            message="round 1 runs, restart 1 of 3: 2 nodes, 4 workers",
            round=1,
            restart_count=1,
            spec=types_pb2.JobSpec(max_nodes=4),
            world_size=4,
            participant_count=2,
            member_count=3,
            endpoint=types_pb2.Endpoint(host="node-a", port=40001),
            last_failure=failure(),
        )
    )
    job.state_time.CopyFrom(ago(25))
    return job


def answer(job: pb.Job, *changes: pb.RoundChange) -> pb.GetJobResponse:
    return pb.GetJobResponse(job=job, round_changes=changes)


def failure(**changes: object) -> types_pb2.WorkerFailure:
    usual = types_pb2.WorkerFailure(
        node="node-b",
        local_rank=1,
        rank=3,
        pid=70,
        exit_code=-9,
        message="SIGKILL; killed by the kernel's out-of-memory killer",
        corrected_time=ago(32),
        time_error=Duration(nanos=12_000_000),
    )
    usual.MergeFrom(types_pb2.WorkerFailure(**changes))  # type: ignore[arg-type]
    return usual


def node(name: str, state: pb.NodeState.ValueType = pb.NODE_STATE_PARTICIPANT, **changes: object) -> pb.Node:
    usual = pb.Node(
        name=f"jobs/train/nodes/{name}",
        state=state,
        attached=True,
        phase=types_pb2.AGENT_PHASE_RUNNING,
        heartbeat_time=ago(2),
        peer="10.0.0.7",
        agent_version="rallypoint/0.1.0",
        observe_time=NOW,
    )
    usual.MergeFrom(pb.Node(**changes))  # type: ignore[arg-type]
    return usual


def workers() -> list[pb.Worker]:
    return [pb.Worker(rank=rank, node="node-a" if rank < 2 else "node-b") for rank in range(4)]


def test_a_job_that_waits() -> None:
    assert status_text(answer(waiting_job()), [], []).splitlines() == [
        "job           train, uid 5f3c, began 2027-01-15 07:58:20Z",
        "state         GATHERING for 1m40s, since 2027-01-15 07:58:20Z",
        "why           WAITING_FOR_NODES: waiting: 0 of 2 nodes, 41 s left",
        "round         none yet",
        "restarts      0 used of 3",
        "nodes         0 attached or expected back; a round has 2 nodes",
    ]


def test_a_job_that_runs_after_a_failure() -> None:
    nodes = [
        node("node-a"),
        node("node-b", suspect=True, heartbeat_time=ago(31)),
        node("node-c", pb.NODE_STATE_STANDBY),
    ]
    assert status_text(answer(running_job()), nodes, workers()).splitlines() == [
        "job           train, uid 5f3c, began 2027-01-15 07:58:20Z",
        "state         RUNNING for 25s, since 2027-01-15 07:59:35Z",
        "why           ROUND_RUNS: round 1 runs, restart 1 of 3: 2 nodes, 4 workers",
        "round         1: 2 nodes, 4 workers, meeting at node-a:40001",
        "restarts      1 used of 3",
        "nodes         3 attached or expected back; a round has 2 to 4 nodes",
        "last failure  rank 3 (local rank 1) on node-b exited with -9 (SIGKILL), 32s ago",
        "              SIGKILL; killed by the kernel's out-of-memory killer",
        "",
        "NODE    STATE        RANKS  AGENT    HEARTBEAT  ADDRESS   VERSION           NOTES",
        "node-a  PARTICIPANT  0-1    RUNNING  2.0s       10.0.0.7  rallypoint/0.1.0",
        "node-b  PARTICIPANT  2-3    RUNNING  31s        10.0.0.7  rallypoint/0.1.0  " + SUSPECT,
        "node-c  STANDBY      -      RUNNING  2.0s       10.0.0.7  rallypoint/0.1.0",
    ]


@pytest.mark.parametrize("state", [types_pb2.JOB_STATE_GATHERING, types_pb2.JOB_STATE_SUCCEEDED])
def test_a_round_that_is_over_meets_nowhere(state: types_pb2.JobState.ValueType) -> None:
    job = running_job()
    job.state = state
    assert "round         1 was the last: 2 nodes, 4 workers" in status_text(answer(job), [], []).splitlines()


def test_how_the_last_round_ended_and_what_the_way_to_this_one_took() -> None:
    change = pb.RoundChange(
        round=0,
        cause="NODE_JOINED",
        message="node-b joined",
        next_round=1,
        end_time=ago(30),
        detect=Duration(),
        decide=Duration(nanos=2_000_000),
        teardown=Duration(seconds=4),
        rendezvous=Duration(),
        spawn=Duration(seconds=1),
    )
    lines = status_text(answer(running_job(), change), [node("node-a")], []).splitlines()
    assert lines[4] == "last round    round 0 ended 30s ago: node-b joined"
    table = lines.index("")
    assert lines[table + 1 : table + 4] == [
        "ROUND  ENDED  DETECT  DECIDE  TEARDOWN  RENDEZVOUS  SPAWN  TOTAL  WHY",
        "0      30s    0ms     2ms     4.0s      0ms         1.0s   5.0s   NODE_JOINED: node-b joined",
        "",
    ]
    assert lines[table + 4].startswith("NODE ")


def test_an_outcome_names_its_culprit_and_who_else_may_have_been_first() -> None:
    job = running_job()
    job.state, job.reason = types_pb2.JOB_STATE_FAILED, "RESTARTS_EXHAUSTED"
    traceback = "".join(f"line {number}\n" for number in range(14))
    culprit = failure(message="\x1b[2Jbad", traceback=traceback)
    job.outcome.CopyFrom(types_pb2.Outcome(culprit=culprit, candidates=[failure(rank=7, node="node-z")]))
    lines = status_text(answer(job), [], []).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("last failure"))
    assert lines[start:] == [
        "last failure  rank 3 (local rank 1) on node-b exited with -9 (SIGKILL), 32s ago",
        "              \\x1b[2Jbad",
        "              ... 2 lines before: see -o json",
        *(f"              line {number}" for number in range(2, 14)),
        "or first      rank 7 (local rank 1) on node-z exited with -9 (SIGKILL), 32s ago",
        "              SIGKILL; killed by the kernel's out-of-memory killer",
    ]


@pytest.mark.parametrize(("exit_code", "message"), [(5, "exit code 5"), (-9, "SIGKILL")])
def test_a_message_that_says_no_more_than_the_exit_code_is_left_out(exit_code: int, message: str) -> None:
    job = running_job()
    job.last_failure.exit_code, job.last_failure.message = exit_code, message
    assert status_text(answer(job), [], []).splitlines()[-1].startswith("last failure  rank 3")


def test_no_bound_of_restarts_is_no_number() -> None:
    job = running_job()
    job.spec.max_restarts = INT32_MAX
    assert "restarts      1 used of any number" in status_text(answer(job), [], [])


def test_of_many_nodes_those_are_shown_that_are_not_well() -> None:
    nodes = [node(f"node-{number:02}") for number in range(NODES_SHOWN + 1)]
    lines = status_text(answer(running_job()), nodes, []).splitlines()
    assert lines[-2:] == ["", f"and {NODES_SHOWN + 1} nodes more, last heard 2.0s ago: see rallypoint nodes"]
    nodes[3].state = pb.NODE_STATE_LOST
    nodes[5].attached = False
    shown = status_text(answer(running_job()), nodes, []).splitlines()[-4:]
    assert [line.split()[0] for line in shown] == ["NODE", "node-03", "node-05", "and"]
    assert shown[2].endswith("not attached")
    assert shown[3] == f"and {NODES_SHOWN - 1} nodes more, last heard 2.0s ago: see rallypoint nodes"


def test_of_nodes_that_are_not_shown_the_heartbeats_are_told() -> None:
    nodes = [node(f"node-{number:02}", heartbeat_time=ago(number)) for number in range(NODES_SHOWN + 1)]
    last = status_text(answer(running_job()), nodes, []).splitlines()[-1]
    assert last == f"and {NODES_SHOWN + 1} nodes more, last heard 0.0s to {NODES_SHOWN}s ago: see rallypoint nodes"
    for each in nodes:
        each.ClearField("heartbeat_time")
    last = status_text(answer(running_job()), nodes, []).splitlines()[-1]
    assert last == f"and {NODES_SHOWN + 1} nodes more: see rallypoint nodes"


def test_the_state_has_a_colour_where_colours_are_wanted() -> None:
    assert "state         \x1b[32mRUNNING\x1b[0m for" in status_text(answer(running_job()), [], [], in_colour)
