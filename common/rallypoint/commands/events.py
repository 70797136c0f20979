"""``rallypoint events``: what was decided about a job, and with ``--follow`` what is."""

from __future__ import annotations

import sys

from rallypoint.commands.output import Paint, plain
from rallypoint.commands.session import Session
from rallypoint.commands.watching import watch
from rallypoint.commands.words import enum_word, one_line
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.wire.scalars import moment

_KIND_WIDTH = 16


def show_events(session: Session) -> None:
    request = pb.ListJobEventsRequest(parent=f"jobs/{session.arguments.job}")
    listed = session.connection.ask_all(session.connection.jobs.ListJobEvents, request)
    if listed.truncated:
        _note("earlier events of this job are not kept any more")
    for event in listed.events:
        show_event(session, event)
    if session.arguments.follow:
        _follow(session, listed.resume_token)


def _follow(session: Session, token: str) -> None:
    for message in watch(session, token):
        if message.HasField("snapshot"):
            _note("some events were missed: they are not kept any more")
        for event in message.events:
            show_event(session, event)


def show_event(session: Session, event: pb.JobEvent) -> None:
    session.output.show_next(event, lambda paint: event_text(event, paint))


def event_text(event: pb.JobEvent, paint: Paint = plain) -> str:
    """On one line: when, what, and as a sentence."""
    kind = enum_word(pb.JobEventKind, event.kind, "JOB_EVENT_KIND_")
    return f"{moment(event.event_time)}  {kind:<{_KIND_WIDTH}}  {one_line(event.message)}"


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
