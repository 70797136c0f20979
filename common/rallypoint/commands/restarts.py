"""The part of ``rallypoint status`` that tells how rounds ended, and how long the way to the next one took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from rallypoint.commands.output import Paint, plain
from rallypoint.commands.table import table
from rallypoint.commands.words import age, lasted, one_line
from rallypoint.texts import counted
from rallypoint.v1 import job_service_pb2 as pb

RESTARTS_SHOWN = 5
"""The newest: the others are in the JSON."""

_Phase = Literal["detect", "decide", "teardown", "rendezvous", "spawn"]
"""As the fields of RoundChange are called, in their order."""

PHASES: tuple[_Phase, ...] = get_args(_Phase)

_HEADER = ("ROUND", "ENDED", *map(str.upper, PHASES), "TOTAL", "WHY")


def last_end(answer: pb.GetJobResponse) -> str:
    """How the last round that has ended did; "" if none has."""
    ended = [change for change in answer.round_changes if change.end_time.seconds]
    if not ended:
        return ""
    last = ended[-1]
    ago = age(last.end_time, answer.job.observe_time)
    return f"round {last.round} ended {ago} ago: {one_line(last.message)}"


def restart_lines(answer: pb.GetJobResponse, paint: Paint = plain) -> Iterator[str]:
    """A table of the newest, each with what the phases took: "-" for what is not over, or not known."""
    newest = answer.round_changes[-RESTARTS_SHOWN:]
    yield table(_HEADER, (_row(change, answer.job) for change in newest), paint)
    if left_out := len(answer.round_changes) - len(newest):
        yield f"and {counted(left_out, 'round')} before: see -o json"


def _row(change: pb.RoundChange, job: pb.Job) -> tuple[str, ...]:
    known = {phase: getattr(change, phase) for phase in PHASES if change.HasField(phase)}
    return (
        str(change.round),
        age(change.end_time, job.observe_time),
        *(lasted([known[phase]]) if phase in known else "" for phase in PHASES),
        lasted(known.values()),
        f"{change.cause}: {change.message}",
    )
