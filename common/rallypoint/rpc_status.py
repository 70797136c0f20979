"""A :class:`~rallypoint.errors.Refusal` as the status of an RPC, and back.

The status carries a ``google.rpc.Status`` in its trailing metadata, with an ``ErrorInfo`` and, if a field of the
request is at fault, a ``BadRequest``. ``google.rpc`` is imported when the first refusal is said: most starts see none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from rallypoint.errors import ERROR_DOMAIN, Reason, Refusal

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

DETAILS_KEY = "grpc-status-details-bin"
"""Where gRPC carries a google.rpc.Status."""


def to_status(refusal: Refusal) -> Status:
    """The refusal as a google.rpc.Status."""
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
    from google.rpc.status_pb2 import Status

    status = Status(code=grpc.StatusCode[refusal.code].value[0], message=refusal.message)
    info = ErrorInfo(reason=refusal.reason.value, domain=ERROR_DOMAIN, metadata=refusal.metadata)
    status.details.add().Pack(info)
    if refusal.field:
        at_fault = BadRequest.FieldViolation(field=refusal.field, description=refusal.message)
        status.details.add().Pack(BadRequest(field_violations=[at_fault]))
    return status


def from_status(status: Status) -> Refusal | None:
    """The refusal that a status carries; None if it carries none, or one of a later release."""
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

    info, bad_request = ErrorInfo(), BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad_request)
    if info.domain != ERROR_DOMAIN or info.reason not in Reason.__members__:
        return None
    violations = bad_request.field_violations
    return Refusal(
        reason=Reason(info.reason),
        message=status.message,
        field=violations[0].field if violations else "",
        metadata=dict(info.metadata),
    )


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: Refusal) -> NoReturn:
    """End the RPC with the refusal. Raises, always: what the RPC still did must be over."""
    details = to_status(refusal).SerializeToString()
    await context.abort(grpc.StatusCode[refusal.code], refusal.message, ((DETAILS_KEY, details),))


def refusal_from_rpc_error(error: grpc.RpcError) -> Refusal | None:
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
