"""``rallypoint jobs``."""

from __future__ import annotations

from collections.abc import Iterable

from rallypoint.commands.output import Paint, plain
from rallypoint.commands.session import Session
from rallypoint.commands.table import table
from rallypoint.commands.words import age, enum_word, last_part
from rallypoint.limits import INT32_MAX
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.wire.types import JOB_STATES

_HEADER = ("JOB", "STATE", "SINCE", "ROUND", "RESTARTS", "NODES", "WORKERS", "WHY")


def show_jobs(session: Session) -> None:
    # Each once, however often it was named: the API has a bound for how many it takes.
    states = [JOB_STATES.number(state) for state in dict.fromkeys(session.arguments.states)]
    listed = session.connection.ask_all(session.connection.jobs.ListJobs, pb.ListJobsRequest(states=states))
    session.output.show([listed], lambda paint: jobs_text(listed.jobs, paint))


def jobs_text(jobs: Iterable[pb.Job], paint: Paint = plain) -> str:
    """A line for each."""
    return table(_HEADER, map(_row, jobs), paint)


def _row(job: pb.Job) -> tuple[str, ...]:
    return (
        last_part(job.name),
        job_state(job),
        age(job.state_time, job.observe_time),
        str(job.round) if job.HasField("round") else "",
        f"{job.restart_count}/{restart_limit(job) or 'any'}",
        str(job.participant_count),
        str(job.world_size),
        job.message,
    )


def job_state(job: pb.Job) -> str:
    return enum_word(types_pb2.JobState, job.state, "JOB_STATE_")


def restart_limit(job: pb.Job) -> str:
    """ "" if there is none, as torchrun's own agent asks for."""
    return "" if job.spec.max_restarts == INT32_MAX else str(job.spec.max_restarts)
