"""``rallypoint status``: one job at a glance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc

from rallypoint.commands.jobs import job_state, restart_limit
from rallypoint.commands.nodes import ask_nodes, ask_workers, is_well, nodes_text
from rallypoint.commands.output import Paint, plain
from rallypoint.commands.restarts import last_end, restart_lines
from rallypoint.commands.session import Session
from rallypoint.commands.watching import watch, will_pass
from rallypoint.commands.words import age, exit_in_words, last_part, lines_of, one_line
from rallypoint.limits import INT32_MAX
from rallypoint.texts import counted, signal_name
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.wire.scalars import moment

NODES_SHOWN = 24
"""Of a job with more nodes only those are shown of which there is something to be said, and so many of them."""

TRACEBACK_LINES = 12

_INDENT = 14

_WITHOUT_ROUND = (
    types_pb2.JOB_STATE_GATHERING,
    types_pb2.JOB_STATE_SUCCEEDED,
    types_pb2.JOB_STATE_FAILED,
    types_pb2.JOB_STATE_CANCELLED,
)


def show_status(session: Session) -> None:
    answer, nodes, workers = _ask(session)
    session.output.show(
        [answer, nodes, workers], lambda paint: status_text(answer, nodes.nodes, workers.workers, paint)
    )


def watch_status(session: Session) -> None:
    """On a terminal the newest status; else a line for each change. Until the job is decided."""
    last = ""
    for _ in watch(session):
        try:
            last = _show_change(session, last)
        except grpc.RpcError as error:
            if not will_pass(error):
                raise
    _show_change(session, last)


def _show_change(session: Session, last: str) -> str:
    """Something was decided, or time has passed. Returns what there is to see, in short."""
    answer, nodes, workers = _ask(session)
    if session.output.redraws:
        session.output.redraw(lambda paint: status_text(answer, nodes.nodes, workers.workers, paint))
        return ""
    if summary(answer.job) != last:
        session.output.show_next(answer, lambda paint: summary(answer.job, paint))
    return summary(answer.job)


def summary(job: pb.Job, paint: Paint = plain) -> str:
    """On one line. Not how long it has been so: that would be news every time."""
    why = ", ".join(part for part in one_line(job.message).split(", ") if not part.endswith(" s left"))
    return f"{moment(job.state_time)}  {paint(job_state(job))}  {why}"


def _ask(session: Session) -> tuple[pb.GetJobResponse, pb.ListNodesResponse, pb.ListWorkersResponse]:
    request = pb.GetJobRequest(name=f"jobs/{session.arguments.job}")
    answer = session.connection.ask(session.connection.jobs.GetJob, request)
    return answer, ask_nodes(session), ask_workers(session)


def status_text(
    answer: pb.GetJobResponse, nodes: Sequence[pb.Node], workers: Sequence[pb.Worker], paint: Paint = plain
) -> str:
    """What the job is and why, what its restarts took, then its nodes."""
    lines = [_field(label, text) for label, text in _facts(answer, paint)]
    if answer.round_changes:
        lines += ["", *restart_lines(answer, paint)]
    if nodes:
        lines += ["", *_nodes(nodes, workers, paint)]
    return "\n".join(lines)


def _field(label: str, text: str) -> str:
    """Further lines of the text are indented to its first."""
    return f"{label:<{_INDENT}}{text}".replace("\n", f"\n{'':<{_INDENT}}")


def _facts(answer: pb.GetJobResponse, paint: Paint) -> Iterator[tuple[str, str]]:
    """Labels and texts. A text may have several lines."""
    job = answer.job
    yield "job", f"{last_part(job.name)}, uid {one_line(job.uid)}, began {moment(job.create_time)}"
    since = age(job.state_time, job.observe_time)
    yield "state", f"{paint(job_state(job))} for {since}, since {moment(job.state_time)}"
    yield "why", ": ".join(filter(None, (one_line(job.reason), one_line(job.message))))
    yield "round", _round(job)
    if ended := last_end(answer):
        yield "last round", ended
    yield "restarts", f"{job.restart_count} used of {restart_limit(job) or 'any number'}"
    yield "nodes", _membership(job)
    if job.HasField("hold"):
        yield "held", _hold(job)
    if job.HasField("agreed_spec"):
        yield "changed", f"agents agreed on {_bounds(job.agreed_spec)}, {_restarts(job.agreed_spec)}"
    if job.labels:
        yield "labels", ", ".join(f"{one_line(key)}={one_line(job.labels[key])}" for key in sorted(job.labels))
    if failure := _last_failure(job):
        yield "last failure", _failure(failure, job)
    for candidate in job.outcome.candidates:
        yield "or first", _failure(candidate, job)


def _round(job: pb.Job) -> str:
    if not job.HasField("round"):
        return "none yet"
    size = f"{counted(job.participant_count, 'node')}, {counted(job.world_size, 'worker')}"
    if job.state in _WITHOUT_ROUND:
        return f"{job.round} was the last: {size}"
    meeting = f", meeting at {one_line(job.endpoint.host)}:{job.endpoint.port}" if job.endpoint.port else ""
    succeeded = f", {counted(job.succeeded_count, 'node')} succeeded" if job.succeeded_count else ""
    return f"{job.round}: {size}{meeting}{succeeded}"


def _membership(job: pb.Job) -> str:
    return f"{job.member_count} attached or expected back; a round has {_bounds(job.spec)}"


def _bounds(spec: types_pb2.JobSpec) -> str:
    least, most = spec.min_nodes, spec.max_nodes
    return counted(least, "node") if least == most else f"{least} to {most} nodes"


def _restarts(spec: types_pb2.JobSpec) -> str:
    return "any number of restarts" if spec.max_restarts == INT32_MAX else counted(spec.max_restarts, "restart")


def _hold(job: pb.Job) -> str:
    """By whom and why, since when and until when."""
    hold = job.hold
    why = f": {one_line(hold.reason)}" if hold.reason else ""
    since, until = moment(hold.hold_time), moment(hold.expire_time)
    return f"by {one_line(hold.requested_by)}{why}\nsince {since}, until {until} at the latest; no round is formed"


def _last_failure(job: pb.Job) -> types_pb2.WorkerFailure | None:
    if job.outcome.HasField("culprit"):
        return job.outcome.culprit
    return job.last_failure if job.HasField("last_failure") else None


def _failure(failure: types_pb2.WorkerFailure, job: pb.Job) -> str:
    """Who failed and how, when, and the last of what it said."""
    who = f"rank {failure.rank} (local rank {failure.local_rank}) on {one_line(failure.node)}"
    ago = age(failure.corrected_time, job.observe_time)
    lines = [f"{who} {exit_in_words(failure.exit_code)}{f', {ago} ago' if ago else ''}"]
    if failure.message not in _repetitions(failure.exit_code):
        lines += lines_of(failure.message)
    return "\n".join([*lines, *_traceback(failure.traceback)])


def _repetitions(exit_code: int) -> tuple[str, str]:
    """The sentences of an agent that knows no more than the exit code."""
    return f"exit code {exit_code}", signal_name(-exit_code)


def _traceback(traceback: str) -> list[str]:
    lines = lines_of(traceback)
    left_out = len(lines) - TRACEBACK_LINES
    if left_out <= 0:
        return lines
    return [f"... {counted(left_out, 'line')} before: see -o json", *lines[-TRACEBACK_LINES:]]


def _nodes(nodes: Sequence[pb.Node], workers: Sequence[pb.Worker], paint: Paint) -> Iterator[str]:
    if len(nodes) <= NODES_SHOWN:
        yield nodes_text(nodes, workers, paint)
        return
    shown = [node for node in nodes if not is_well(node)][:NODES_SHOWN]
    if shown:
        yield nodes_text(shown, workers, paint)
    names = {node.name for node in shown}
    others = [node for node in nodes if node.name not in names]
    yield f"and {counted(len(others), 'node')} more{_last_heard(others)}: see rallypoint nodes"


def _last_heard(nodes: Sequence[pb.Node]) -> str:
    """The newest and the oldest of their heartbeats."""
    heard = sorted((node for node in nodes if node.heartbeat_time.seconds), key=_instant)
    if not heard:
        return ""
    newest, oldest = (age(node.heartbeat_time, node.observe_time) for node in (heard[-1], heard[0]))
    return f", last heard {newest} ago" if newest == oldest else f", last heard {newest} to {oldest} ago"


def _instant(node: pb.Node) -> tuple[int, int]:
    return node.heartbeat_time.seconds, node.heartbeat_time.nanos
