"""What can be refused, and what the other side does about it.

A :class:`Refusal` is a value that the cores return; :mod:`rallypoint.rpc_status` carries it over gRPC, as a status with
a ``google.rpc.ErrorInfo`` and what else :data:`RULES` says: the one table of reasons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from rallypoint.values import dataclass

ERROR_DOMAIN = "rallypoint"


class Reason(StrEnum):
    """Why a request was refused: the ``reason`` of the ErrorInfo."""

    INVALID_FIELD = "INVALID_FIELD"
    SPEC_MISMATCH = "SPEC_MISMATCH"
    NODE_NAME_IN_USE = "NODE_NAME_IN_USE"
    NODE_NAME_BUSY = "NODE_NAME_BUSY"
    WRONG_CLUSTER = "WRONG_CLUSTER"
    UNSUPPORTED_VERSION = "UNSUPPORTED_VERSION"
    UNKNOWN_LIFE = "UNKNOWN_LIFE"
    UNKNOWN_LEASE = "UNKNOWN_LEASE"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    JOB_DECIDED = "JOB_DECIDED"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    NO_ROUND_RUNS = "NO_ROUND_RUNS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    CREDENTIALS_CHANGED = "CREDENTIALS_CHANGED"
    TOO_MANY_FAILURES = "TOO_MANY_FAILURES"
    LIMIT_REACHED = "LIMIT_REACHED"
    WATCH_EXPIRED = "WATCH_EXPIRED"
    WATCH_TOO_SLOW = "WATCH_TOO_SLOW"
    SUPERSEDED = "SUPERSEDED"
    JOURNAL_BEHIND = "JOURNAL_BEHIND"
    RECOVERING = "RECOVERING"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    FENCED = "FENCED"


RETRYABLE_CODES = frozenset({"UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED", "CANCELLED", "INTERNAL"})
"""After these an agent attaches again, with backoff; gRPC itself answers a join storm with the last two."""


class Detail(StrEnum):
    """A message of google.rpc that a status carries beside its ErrorInfo."""

    BAD_REQUEST = "BadRequest"
    PRECONDITION_FAILURE = "PreconditionFailure"
    RETRY_INFO = "RetryInfo"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a reason means on the wire. ``code``: the gRPC status code, by name; it picks the client's move: ``final``.

    ``client``: what the client does. ``retry_after_ms``: how long it waits at least before it asks again, unless who
    refuses knows better; None: nobody can tell.
    """

    code: str
    client: str
    retry_after_ms: int | None = None

    @property
    def final(self) -> bool:
        """Whether asking again, unchanged, must fail again."""
        return self.code not in RETRYABLE_CODES

    @property
    def details(self) -> tuple[Detail, ...]:
        """What each of its statuses carries, without fail."""
        found = {
            Detail.BAD_REQUEST: self.code == "INVALID_ARGUMENT",
            Detail.PRECONDITION_FAILURE: self.code == "FAILED_PRECONDITION",
            Detail.RETRY_INFO: self.retry_after_ms is not None,
        }
        return tuple(detail for detail, is_carried in found.items() if is_carried)


RULES: Mapping[Reason, Rule] = {
    Reason.INVALID_FIELD: Rule(
        "INVALID_ARGUMENT",
        "Mends the request: the message says what the field must be. A bug in the client, or in what it was given.",
    ),
    Reason.SPEC_MISMATCH: Rule(
        "FAILED_PRECONDITION",
        "Gives the agent the flags that the job was started with; the violations name each that differs.",
    ),
    Reason.NODE_NAME_IN_USE: Rule(
        "FAILED_PRECONDITION", "Gives the agent another node name: a live agent has this one."
    ),
    Reason.NODE_NAME_BUSY: Rule(
        "ABORTED",
        "Attaches again until the node's earlier agent is gone: `lease_ends_in_ms` of the metadata at the latest.",
        500,
    ),
    Reason.WRONG_CLUSTER: Rule(
        "FAILED_PRECONDITION", "Asks the coordinator that it belongs to: the address is that of another one."
    ),
    Reason.UNSUPPORTED_VERSION: Rule(
        "FAILED_PRECONDITION", "Installs a release that speaks a protocol version of the coordinator's."
    ),
    Reason.UNKNOWN_LIFE: Rule("NOT_FOUND", "Stops: of the life that it names nothing is known, or nothing any more."),
    Reason.UNKNOWN_LEASE: Rule("NOT_FOUND", "Stops: there is no lease to report on."),
    Reason.JOB_NOT_FOUND: Rule("NOT_FOUND", "Looks the name up with ListJobs; a decided job is forgotten in the end."),
    Reason.JOB_DECIDED: Rule("FAILED_PRECONDITION", "Leaves it: the job has ended, and nothing is left to be done."),
    Reason.NODE_NOT_FOUND: Rule("NOT_FOUND", "Looks the name up with ListNodes; only a member can be asked to leave."),
    Reason.NO_ROUND_RUNS: Rule(
        "FAILED_PRECONDITION", "Waits until the job is RUNNING, and asks again if it still wants to."
    ),
    Reason.ETAG_MISMATCH: Rule(
        "ABORTED", "Reads the job, and decides again: `current` of the metadata is its etag now."
    ),
    Reason.UNAUTHENTICATED: Rule(
        "UNAUTHENTICATED",
        "Shows credentials that the coordinator knows. An agent that was admitted before tries on for one `lease_ttl`.",
    ),
    Reason.PERMISSION_DENIED: Rule(
        "PERMISSION_DENIED", "Shows credentials with the role, or for the job, that the message names."
    ),
    Reason.CREDENTIALS_CHANGED: Rule("ABORTED", "Calls again at once, with the credentials of now."),
    Reason.TOO_MANY_FAILURES: Rule(
        "RESOURCE_EXHAUSTED", "Mends its credentials, and waits: its address has shown bad ones too often.", 2_000
    ),
    Reason.LIMIT_REACHED: Rule(
        "RESOURCE_EXHAUSTED", "Asks again later, with backoff: `limit` of the metadata is how many there may be.", 1_000
    ),
    Reason.WATCH_EXPIRED: Rule("OUT_OF_RANGE", "Watches again without a resume_token, from a snapshot on."),
    Reason.WATCH_TOO_SLOW: Rule(
        "RESOURCE_EXHAUSTED", "Watches again with `resume_token` of the metadata, and reads faster.", 100
    ),
    Reason.SUPERSEDED: Rule("ABORTED", "Nothing, if it attached again itself: the later stream counts."),
    Reason.JOURNAL_BEHIND: Rule(
        "UNAVAILABLE", "Asks again, with backoff, while a person gives the coordinator its own journal back.", 5_000
    ),
    Reason.RECOVERING: Rule(
        "UNAVAILABLE",
        "Asks again, with backoff. Nothing is decided meanwhile: an agent's lease counts from when it sent that Hello.",
        200,
    ),
    Reason.SHUTTING_DOWN: Rule(
        "UNAVAILABLE", "Asks again, with backoff, until the coordinator is back or another one answers.", 200
    ),
    Reason.FENCED: Rule(
        "UNAVAILABLE", "Asks again, with backoff, at any other address first: another coordinator has the journal."
    ),
}
"""Everything that can be refused: the one table, from which docs/errors.md is drawn."""


class Violation(NamedTuple):
    """What does not hold. ``subject``: a field of the request, as a path, or a resource by its name."""

    subject: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A typed "no". What is variable in ``message`` is also in ``metadata``, or in ``retry_after_ms``.

    ``field`` is what is at fault: the request's field, as a path (``hello.job_spec.min_nodes``), or the resource whose
    state it is; or empty. ``violations``: each of several; without them it is ``field``, by ``message``.
    ``retry_after_ms``: not to ask again before; None: as the rule says.
    """

    reason: Reason
    message: str
    field: str = ""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after_ms: int | None = None

    @property
    def rule(self) -> Rule:
        return RULES[self.reason]

    @property
    def code(self) -> str:
        return self.rule.code

    @property
    def final(self) -> bool:
        """Whether asking again, unchanged, must fail again."""
        return self.rule.final

    @property
    def at_fault(self) -> tuple[Violation, ...]:
        return self.violations or (Violation(self.field, self.message),)

    @property
    def retry_ms(self) -> int | None:
        """How long to wait at least before asking again; None: nobody can tell."""
        return self.rule.retry_after_ms if self.retry_after_ms is None else self.retry_after_ms


class RefusedError(Exception):
    """A refusal, raised where an exception is the shell's way out."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
