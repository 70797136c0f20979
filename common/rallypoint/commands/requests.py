"""``rallypoint cancel``, ``restart`` and ``drain``.

Who asked is for the coordinator to say: it knows the credential and the address.
"""

from __future__ import annotations

from rallypoint.commands.session import Session
from rallypoint.v1 import job_service_pb2 as pb


def cancel(session: Session) -> None:
    job, reason = session.arguments.job, session.arguments.reason
    request = pb.CancelJobRequest(name=f"jobs/{job}", reason=reason)
    answer = session.connection.ask(session.connection.jobs.CancelJob, request)
    session.output.show([answer], lambda _: cancel_text(job, answer))


def restart(session: Session) -> None:
    job, reason = session.arguments.job, session.arguments.reason
    request = pb.RestartJobRequest(name=f"jobs/{job}", reason=reason)
    answer = session.connection.ask(session.connection.jobs.RestartJob, request)
    session.output.show([answer], lambda _: restart_text(job))


def drain(session: Session) -> None:
    job, node, reason = session.arguments.job, session.arguments.node, session.arguments.reason
    request = pb.DrainNodeRequest(name=f"jobs/{job}/nodes/{node}", reason=reason)
    answer = session.connection.ask(session.connection.jobs.DrainNode, request)
    session.output.show([answer], lambda _: drain_text(job, node, answer))


def cancel_text(job: str, answer: pb.CancelJobResponse) -> str:
    return f"job {job} is being cancelled" if answer.was_news else f"job {job}: it was cancelled before"


def restart_text(job: str) -> str:
    return f"job {job}: the round is being stopped, and the next one formed (of a held job: once it is released)"


def drain_text(job: str, node: str, answer: pb.DrainNodeResponse) -> str:
    if answer.was_news:
        return f"node {node} is leaving job {job}"
    return f"node {node} of job {job}: it was drained before"
