"""What can be refused, and what the other side does about it.

A :class:`Refusal` is a value that the cores return; :mod:`rallypoint.rpc_status` carries it over gRPC, as a status with
a ``google.rpc.ErrorInfo``. :data:`CODES` is the one table of reason -> status code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum

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


CODES: Mapping[Reason, str] = {
    Reason.INVALID_FIELD: "INVALID_ARGUMENT",
    Reason.SPEC_MISMATCH: "FAILED_PRECONDITION",
    Reason.NODE_NAME_IN_USE: "FAILED_PRECONDITION",
    Reason.NODE_NAME_BUSY: "ABORTED",
    Reason.WRONG_CLUSTER: "FAILED_PRECONDITION",
    Reason.UNSUPPORTED_VERSION: "FAILED_PRECONDITION",
    Reason.UNKNOWN_LIFE: "NOT_FOUND",
    Reason.UNKNOWN_LEASE: "NOT_FOUND",
    Reason.JOB_NOT_FOUND: "NOT_FOUND",
    Reason.JOB_DECIDED: "FAILED_PRECONDITION",
    Reason.NODE_NOT_FOUND: "NOT_FOUND",
    Reason.NO_ROUND_RUNS: "FAILED_PRECONDITION",
    Reason.UNAUTHENTICATED: "UNAUTHENTICATED",
    Reason.PERMISSION_DENIED: "PERMISSION_DENIED",
    Reason.CREDENTIALS_CHANGED: "ABORTED",
    Reason.TOO_MANY_FAILURES: "RESOURCE_EXHAUSTED",
    Reason.LIMIT_REACHED: "RESOURCE_EXHAUSTED",
    Reason.WATCH_EXPIRED: "OUT_OF_RANGE",
    Reason.WATCH_TOO_SLOW: "RESOURCE_EXHAUSTED",
    Reason.SUPERSEDED: "ABORTED",
    Reason.JOURNAL_BEHIND: "UNAVAILABLE",
    Reason.RECOVERING: "UNAVAILABLE",
    Reason.SHUTTING_DOWN: "UNAVAILABLE",
    Reason.FENCED: "UNAVAILABLE",
}
"""The gRPC status code, by name, of each reason. The code picks the client's move: see ``final``."""

RETRYABLE_CODES = frozenset({"UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED", "CANCELLED", "INTERNAL"})
"""After these an agent attaches again, with backoff; gRPC itself answers a join storm with the last two."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A typed "no". Everything variable in ``message`` is also in ``metadata``.

    ``field`` is the request's field at fault, as a path (``hello.job_spec.min_nodes``), or empty.
    """

    reason: Reason
    message: str
    field: str = ""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def code(self) -> str:
        return CODES[self.reason]

    @property
    def final(self) -> bool:
        """Whether asking again, unchanged, must fail again."""
        return self.code not in RETRYABLE_CODES


class RefusedError(Exception):
    """A refusal, raised where an exception is the shell's way out."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
