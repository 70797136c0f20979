"""``rallypoint update``, ``hold`` and ``release``.

Who asked is for the coordinator to say: it knows the credential and the address.
"""

from __future__ import annotations

from argparse import Namespace

from rallypoint.commands.session import Session
from rallypoint.commands.words import one_line
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.wire.scalars import duration_to_proto


def update(session: Session) -> None:
    request = update_request(session.arguments)
    if session.arguments.label:
        _change_labels(session, request)
    answer = session.connection.ask(session.connection.jobs.UpdateJob, request)
    session.output.show([answer], lambda _: update_text(session.arguments.job, answer))


def hold(session: Session) -> None:
    arguments = session.arguments
    request = pb.HoldJobRequest(name=f"jobs/{arguments.job}", reason=arguments.reason)
    if arguments.hold_ms is not None:
        request.hold_duration.CopyFrom(duration_to_proto(arguments.hold_ms))
    answer = session.connection.ask(session.connection.jobs.HoldJob, request)
    session.output.show([answer], lambda _: hold_text(arguments.job, answer))


def release(session: Session) -> None:
    job, reason = session.arguments.job, session.arguments.reason
    request = pb.ReleaseJobRequest(name=f"jobs/{job}", reason=reason)
    answer = session.connection.ask(session.connection.jobs.ReleaseJob, request)
    session.output.show([answer], lambda _: release_text(job, answer))


def update_request(arguments: Namespace) -> pb.UpdateJobRequest:
    """What the flags ask for, but for the labels: those that stay have to be read first."""
    request = pb.UpdateJobRequest(reason=arguments.reason)
    request.job.name, request.job.etag = f"jobs/{arguments.job}", arguments.etag
    if arguments.max_restarts is not None:
        request.job.spec.max_restarts = arguments.max_restarts
        request.update_mask.paths.append("spec.max_restarts")
    if arguments.nnodes is not None:
        request.job.spec.min_nodes, request.job.spec.max_nodes = arguments.nnodes
        request.update_mask.paths.extend(("spec.min_nodes", "spec.max_nodes"))
    return request


def _change_labels(session: Session, request: pb.UpdateJobRequest) -> None:
    """An update replaces all labels: its etag says which they were, so that nobody else's change is lost."""
    seen = session.connection.ask(session.connection.jobs.GetJob, pb.GetJobRequest(name=request.job.name)).job
    labels = dict(seen.labels)
    for key, value in session.arguments.label:
        if value is None:
            labels.pop(key, None)
        else:
            labels[key] = value
    request.job.labels.update(labels)
    request.job.etag = request.job.etag or seen.etag
    request.update_mask.paths.append("labels")


def update_text(job: str, answer: pb.UpdateJobResponse) -> str:
    done = f"job {job} is changed" if answer.was_news else f"job {job}: it was so already"
    return f"{done}; its etag is {one_line(answer.job.etag)}"


def hold_text(job: str, answer: pb.HoldJobResponse) -> str:
    if answer.was_news:
        return f"job {job} is held: what runs goes on, and no other round is formed"
    return f"job {job}: it was held before, for as long"


def release_text(job: str, answer: pb.ReleaseJobResponse) -> str:
    return f"job {job} is released" if answer.was_news else f"job {job}: it was not held"
