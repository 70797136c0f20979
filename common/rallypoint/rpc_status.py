"""A :class:`~rallypoint.errors.Refusal` as the status of an RPC, and back.

The status carries a ``google.rpc.Status`` in its trailing metadata, with an ``ErrorInfo`` and the details that its rule
names. ``google.rpc`` is imported when the first refusal is said: most starts see none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from rallypoint.errors import ERROR_DOMAIN, Detail, Reason, Refusal, Violation

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status

DETAILS_KEY = "grpc-status-details-bin"
"""Where gRPC carries a google.rpc.Status."""


def to_status(refusal: Refusal) -> Status:
    """The refusal as a google.rpc.Status."""
    from google.rpc.error_details_pb2 import ErrorInfo
    from google.rpc.status_pb2 import Status

    status = Status(code=grpc.StatusCode[refusal.code].value[0], message=refusal.message)
    info = ErrorInfo(reason=refusal.reason.value, domain=ERROR_DOMAIN, metadata=refusal.metadata)
    status.details.add().Pack(info)
    for detail in refusal.rule.details:
        status.details.add().Pack(_detail(detail, refusal))
    return status


def _detail(detail: Detail, refusal: Refusal) -> Message:
    from google.protobuf.duration_pb2 import Duration
    from google.rpc.error_details_pb2 import BadRequest, PreconditionFailure, RetryInfo

    match detail:
        case Detail.BAD_REQUEST:
            fields = [BadRequest.FieldViolation(field=at, description=why) for at, why in refusal.at_fault]
            return BadRequest(field_violations=fields)
        case Detail.PRECONDITION_FAILURE:
            kind = refusal.reason.value
            found = [
                PreconditionFailure.Violation(type=kind, subject=at, description=why) for at, why in refusal.at_fault
            ]
            return PreconditionFailure(violations=found)
        case Detail.RETRY_INFO:
            delay = Duration()
            delay.FromMilliseconds(refusal.retry_ms or 0)
            return RetryInfo(retry_delay=delay)


def from_status(status: Status) -> Refusal | None:
    """The refusal that a status carries; None if it carries none, or one of a later release."""
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo

    info, bad_request, precondition, retry = ErrorInfo(), BadRequest(), PreconditionFailure(), RetryInfo()
    for detail in status.details:
        for message in (info, bad_request, precondition, retry):
            detail.Unpack(message)
    if info.domain != ERROR_DOMAIN or info.reason not in Reason.__members__:
        return None
    fields = [Violation(found.field, found.description) for found in bad_request.field_violations]
    violations = tuple(fields + [Violation(found.subject, found.description) for found in precondition.violations])
    field = violations[0].subject if violations else ""
    return Refusal(
        reason=Reason(info.reason),
        message=status.message,
        field=field,
        metadata=dict(info.metadata),
        violations=() if violations == (Violation(field, status.message),) else violations,
        retry_after_ms=retry.retry_delay.ToMilliseconds() if retry.HasField("retry_delay") else None,
    )


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: Refusal) -> NoReturn:
    """End the RPC with the refusal. Raises, always: what the RPC still did must be over."""
    details = to_status(refusal).SerializeToString()
    await context.abort(grpc.StatusCode[refusal.code], refusal.message, ((DETAILS_KEY, details),))


def refusal_from_rpc_error(error: BaseException) -> Refusal | None:
    """The refusal behind a failed call; None if something else failed it, such as the connection.

    Its ``code`` is this release's for the reason; what to do next is told by the error's own code.
    """
    from google.protobuf.message import DecodeError
    from google.rpc.status_pb2 import Status

    trailing_metadata = getattr(error, "trailing_metadata", None)
    for key, value in (trailing_metadata() if trailing_metadata else None) or ():
        if key == DETAILS_KEY:
            try:
                return from_status(Status.FromString(value))
            except DecodeError:
                return None
    return None


def retry_s(error: BaseException) -> float:
    """How long the coordinator asks to be left alone for, in seconds: 0 if a failed call does not tell."""
    refusal = refusal_from_rpc_error(error)
    return (refusal.retry_ms or 0) / 1000 if refusal is not None else 0.0
