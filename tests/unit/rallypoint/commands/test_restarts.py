"""What ``rallypoint status`` tells of restarts, to the letter."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint.commands.restarts import PHASES, RESTARTS_SHOWN, last_end, restart_lines
from rallypoint.v1 import job_service_pb2 as pb

NOW_S = 1_800_000_000
WHY = "restart 1 of 3: rank 1 on b exited with -9 (SIGKILL)"


def took(seconds: int = 0, ms: int = 0) -> Duration:
    return Duration(seconds=seconds, nanos=ms * 1_000_000)


def failed(round_number: int, ended_ago_s: int) -> pb.RoundChange:
    return pb.RoundChange(
        round=round_number,
        cause="WORKER_FAILED",
        message=WHY,
        restart_spent=True,
        next_round=round_number + 1,
        end_time=Timestamp(seconds=NOW_S - ended_ago_s),
        detect=took(ms=40),
        decide=took(),
        teardown=took(3, 500),
        rendezvous=took(ms=7),
        spawn=took(80),
    )


def answer(*changes: pb.RoundChange) -> pb.GetJobResponse:
    return pb.GetJobResponse(job=pb.Job(observe_time=Timestamp(seconds=NOW_S)), round_changes=changes)


def test_a_line_for_each_with_what_its_phases_took() -> None:
    joins = pb.RoundChange(
        round=1, cause="NODE_JOINED", message="c\x1b joined", detect=took(), decide=took(ms=3), next_round=2
    )
    assert "\n".join(restart_lines(answer(failed(0, 130), joins))).splitlines() == [
        "ROUND  ENDED  DETECT  DECIDE  TEARDOWN  RENDEZVOUS  SPAWN  TOTAL  WHY",
        f"0      2m10s  40ms    0ms     3.5s      7ms         1m20s  1m23s  WORKER_FAILED: {WHY}",
        "1      -      0ms     3ms     -         -           -      3ms    NODE_JOINED: c\\x1b joined",
    ]


def test_of_many_the_newest_are_shown() -> None:
    lines = "\n".join(restart_lines(answer(*(failed(number, 100 - number) for number in range(7))))).splitlines()
    assert [line.split()[0] for line in lines] == ["ROUND", "2", "3", "4", "5", "6", "and"]
    assert len(lines) == 2 + RESTARTS_SHOWN
    assert lines[-1] == "and 2 rounds before: see -o json"


def test_the_last_end_is_of_a_round_that_has_ended() -> None:
    ending = pb.RoundChange(round=4, cause="NODE_LEFT", message="b left")
    assert last_end(answer(failed(3, 120), ending)).startswith("round 3 ended 2m0s ago: restart 1 of 3: rank 1 on b")
    assert last_end(answer(ending)) == ""


def test_the_phases_are_those_of_the_proto_in_its_order() -> None:
    fields = pb.RoundChange.DESCRIPTOR.fields
    assert tuple(field.name for field in fields if field.message_type is Duration.DESCRIPTOR) == PHASES
