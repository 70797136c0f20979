"""What people ask for is recorded once, with who asked, and answered truly; what they see says what is waited for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from rallypoint.errors import Reason, Refusal
from rallypoint.model import JobState
from rallypoint.v1 import types_pb2
from rallypoint.v1.job_service_pb2 import Job
from rallypoint_coordinator.core.events import OperatorAsked, Request
from rallypoint_coordinator.core.records import (
    Entry,
    JobCancelled,
    JobCreated,
    JobDecided,
    JobHeld,
    JobReleased,
    JobUpdated,
    LifeForgotten,
    NodeDrained,
    Record,
    RestartAsked,
    RoundFormed,
    RoundStopping,
    StopCause,
)
from simulation.world import Violation

Content: TypeAlias = tuple[int, int, int, tuple[tuple[str, str], ...]]

TOLERANCE_MS = 100
"""The coordinator's clock may be ahead of the time of day by 1 in 1,000, and holds are a minute at most."""

WAITING = {types_pb2.JOB_STATE_GATHERING, types_pb2.JOB_STATE_STOPPING}
UNDECIDED_REFUSALS = frozenset({Reason.RECOVERING, Reason.FENCED, Reason.SHUTTING_DOWN})
"""With these it is not known whether the request was recorded."""

RECORDS: dict[type[Record], Request] = {
    JobCancelled: Request.CANCEL,
    RestartAsked: Request.RESTART,
    NodeDrained: Request.DRAIN,
    JobUpdated: Request.UPDATE,
    JobHeld: Request.HOLD,
    JobReleased: Request.RELEASE,
}

Asked: TypeAlias = JobCancelled | RestartAsked | NodeDrained | JobUpdated | JobHeld | JobReleased


class OperatorOracle:
    """Every request goes by a name of its own (``by``)."""

    def __init__(self) -> None:
        self._asked: dict[str, OperatorAsked] = {}
        self._recorded: set[str] = set()
        self._cancelled: set[str] = set()
        self._drained: set[int] = set()
        self._held: dict[str, JobHeld] = {}
        self._handed: dict[str, JobHeld] = {}
        """By job: what a life that gave way was held by, until the one that comes in its place says that it is."""
        self._etags: dict[str, tuple[dict[str, Content], dict[Content, str]]] = {}
        """By life: what each etag stood for, and the other way round."""

    # --- requests

    def asked(self, request: OperatorAsked) -> None:
        self._asked[request.by] = request

    def answered(self, by: str, answer: bool | Refusal | None, known_jobs: set[str]) -> None:
        """None: no answer came."""
        request = self._asked[by]
        if answer is None or (isinstance(answer, Refusal) and answer.reason in UNDECIDED_REFUSALS):
            return
        if (answer is True) != (by in self._recorded):
            raise Violation("REQUEST", f"{request} is answered with {answer}; recorded: {by in self._recorded}")
        not_found = isinstance(answer, Refusal) and answer.reason is Reason.JOB_NOT_FOUND
        if request.job not in known_jobs and not not_found:
            raise Violation("REQUEST", f"{request} for a job that never was is answered with {answer}")

    # --- records

    def journal_lost(self, left: Iterable[tuple[int, Entry]]) -> None:
        """Only this is left of it. What was recorded, and answered, was so when it was."""
        recorded, self._recorded = self._recorded, set()
        self._cancelled.clear()
        self._drained.clear()
        self._held.clear()
        self._handed.clear()
        for _, entry in left:
            self.durable(entry)
        self._recorded |= recorded

    def durable(self, entry: Entry) -> None:
        record, uid = entry.record, entry.job_uid
        match record:
            case JobReleased() if not record.by:
                self._hold_ran_out(entry)
            case LifeForgotten() if uid in self._held:
                self._handed[entry.job] = self._held.pop(uid)
            case JobCreated() if entry.job in self._handed:
                self._held[uid] = self._handed[entry.job]
            case JobHeld() if self._handed.get(entry.job) == record:
                del self._handed[entry.job]
            case JobCancelled() | RestartAsked() | NodeDrained() | JobUpdated() | JobHeld() | JobReleased():
                self._request_recorded(entry, record)
            case RoundFormed():
                self._formed(uid, record)
            case RoundStopping():
                self._stopping(uid, record)
            case JobDecided():
                self._decided(uid, record)
            case _:
                pass

    def _request_recorded(self, entry: Entry, record: Asked) -> None:
        request = self._asked.get(record.by)
        if request is None or request.request is not RECORDS[type(record)] or request.job != entry.job:
            raise Violation("REQUEST", f"{entry.job}: {record} was never asked for, but {request}")
        if record.by in self._recorded:
            raise Violation("REQUEST", f"{entry.job}: {record} is recorded twice")
        self._recorded.add(record.by)
        if isinstance(record, JobCancelled):
            if entry.job_uid in self._cancelled:
                raise Violation("REQUEST", f"{entry.job} is cancelled twice: {record}")
            self._cancelled.add(entry.job_uid)
        elif isinstance(record, NodeDrained):
            if record.node != request.node or record.lease_id in self._drained:
                raise Violation("REQUEST", f"{entry.job}: {record}, asked was {request}")
            self._drained.add(record.lease_id)
        elif isinstance(record, JobHeld):
            self._hold(entry, record, request)
        elif isinstance(record, JobReleased) and self._held.pop(entry.job_uid, None) is None:
            raise Violation("HOLD", f"{entry.job} is released, and was not held: {record}")

    # --- holds

    def _hold(self, entry: Entry, record: JobHeld, request: OperatorAsked) -> None:
        earlier = self._held.get(entry.job_uid)
        since_ms = min(earlier.since_wall_ms, entry.wall_ms) if earlier is not None else entry.wall_ms
        more_ms = record.until_wall_ms - entry.wall_ms - request.hold_ms
        most_ms = min(max(request.hold_ms // 10, 1_000), 60_000) if earlier is not None else 1
        if record.since_wall_ms != since_ms or not 0 <= more_ms < most_ms:
            raise Violation("HOLD", f"{entry.job}: {record} of {request}, after {earlier}")
        self._held[entry.job_uid] = record

    def _hold_ran_out(self, entry: Entry) -> None:
        held = self._held.pop(entry.job_uid, None)
        if held is None or entry.wall_ms < held.until_wall_ms - TOLERANCE_MS:
            raise Violation("HOLD", f"{entry.job} is released at {entry.wall_ms}, of {held}")

    def _stopping(self, uid: str, record: RoundStopping) -> None:
        if uid in self._held and record.cause is StopCause.NODE_JOINED:
            raise Violation("HOLD", f"{uid} is held, and round {record.round} ends for a newcomer")

    def _formed(self, uid: str, record: RoundFormed) -> None:
        if uid in self._held:
            raise Violation("HOLD", f"{uid} is held, and forms round {record.round}: {self._held[uid]}")
        if uid in self._cancelled:
            raise Violation("REQUEST", f"{uid} was cancelled, and forms round {record.round}")
        drained = [seat.node for seat in record.seats if seat.lease_id in self._drained]
        if drained:
            raise Violation("REQUEST", f"{uid}: {drained} were drained and are in round {record.round}")

    def _decided(self, uid: str, record: JobDecided) -> None:
        """Cancelled stays cancelled, whatever failed before or meanwhile."""
        held = self._held.pop(uid, None)
        if held is not None and record.outcome.reason == "JOIN_TIMEOUT":
            raise Violation("HOLD", f"{uid} is held, and ends with {record.outcome}: {held}")
        is_cancelled = record.outcome.state is JobState.CANCELLED
        if is_cancelled != (uid in self._cancelled):
            raise Violation("REQUEST", f"{uid}, cancelled: {uid in self._cancelled}, ends with {record.outcome}")

    # --- what people see

    def seen(self, job: Job, durable_revision: int) -> None:
        if job.version.revision > durable_revision:
            raise Violation("C6", f"{job.name} is shown at revision {job.version.revision}, not {durable_revision}")
        if not job.reason or not job.message:
            raise Violation("C8", f"{job.name} does not say why: {job}")
        if job.state in WAITING and not job.message.endswith(" s left"):
            raise Violation("C8", f"{job.name} waits without saying until when: {job.message}")
        if job.reason == "HELD" and not job.HasField("hold"):
            raise Violation("HOLD", f"{job.name} waits for a hold that is not shown")
        self._check_etag(job)

    def _check_etag(self, job: Job) -> None:
        """One for each state of what can be changed, and none for two."""
        spec = job.spec
        content = (spec.min_nodes, spec.max_nodes, spec.max_restarts, tuple(sorted(job.labels.items())))
        etags, contents = self._etags.setdefault(job.uid, ({}, {}))
        if etags.setdefault(job.etag, content) != content or contents.setdefault(content, job.etag) != job.etag:
            raise Violation("ETAG", f"{job.name}, {job.etag}: {content}; of {etags}")
