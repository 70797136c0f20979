"""What a failed call means for who asked: one line with what to do, and the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import grpc

from rallypoint.commands import exits
from rallypoint.commands.connection import Connection
from rallypoint.commands.words import one_line
from rallypoint.errors import Reason, Refusal
from rallypoint.rpc_status import refusal_from_rpc_error
from rallypoint.security.advice import advice_on

_DETAILS_MAX = 300

_STATUS: Mapping[str, int] = {
    "INVALID_ARGUMENT": exits.USAGE,
    "UNAVAILABLE": exits.UNREACHABLE,
    "DEADLINE_EXCEEDED": exits.UNREACHABLE,
    "UNAUTHENTICATED": exits.NOT_ALLOWED,
    "PERMISSION_DENIED": exits.NOT_ALLOWED,
}
"""By the status code of the call; of any other one exits.REFUSED."""

_ADVICE: Mapping[Reason, str] = {
    Reason.JOB_NOT_FOUND: "see rallypoint jobs",
    Reason.NODE_NOT_FOUND: "see rallypoint nodes JOB",
    Reason.JOB_DECIDED: "nothing is left to be done; see rallypoint status JOB",
    Reason.NO_ROUND_RUNS: "see rallypoint status JOB for what it waits for, and ask again once a round runs",
    Reason.ETAG_MISMATCH: "somebody changed it meanwhile; see rallypoint status JOB -o json, and decide again",
    Reason.PERMISSION_DENIED: "give --token-file one that may do this",
    Reason.TOO_MANY_FAILURES: "mend the token (--token-file), and ask again later",
    Reason.RECOVERING: "ask again later",
    Reason.SHUTTING_DOWN: "ask again once it is back",
    Reason.CREDENTIALS_CHANGED: "ask again with a token of now",
}
"""What a refusal's own message does not say, as it speaks to programs as well."""


class Problem(NamedTuple):
    line: str
    status: int


def explain(error: grpc.RpcError, connection: Connection) -> Problem:
    """Of a call that failed."""
    code = error.code().name
    status = _STATUS.get(code, exits.REFUSED)
    refusal = refusal_from_rpc_error(error)
    if refusal is not None:
        return Problem(_refused(refusal), status)
    details = one_line(error.details() or "")[:_DETAILS_MAX]
    return Problem(_failed(code, details, connection), status)


def _refused(refusal: Refusal) -> str:
    said = f"{refusal.reason}: {one_line(refusal.message)}"
    advice = _ADVICE.get(refusal.reason)
    return f"{said} ({advice})" if advice else said


def _failed(code: str, details: str, connection: Connection) -> str:
    where = connection.target
    if code == "UNAVAILABLE":
        advice = advice_on(details, connection.security)
        advice = advice or "start one there (rallypoint coordinator), or give its address: --coordinator HOST:PORT"
        return f"no coordinator answers at {where}: {advice} ({details})"
    if code == "DEADLINE_EXCEEDED":
        wait = f"{connection.timeout_s:g} s"
        advice = (
            "is it a coordinator's address (--coordinator), and can it be reached from here? --timeout waits longer"
        )
        return f"no answer from {where} within {wait}: {advice}"
    if code == "UNIMPLEMENTED":
        return (
            f"what answers at {where} is no coordinator, or one of an earlier release that cannot do this ({details})"
        )
    return f"{where} answers {code}: {details}"
