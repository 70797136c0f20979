"""Each way in which a call fails, as one line and an exit status."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import grpc
import pytest

from rallypoint.commands import exits
from rallypoint.commands.connection import Connection
from rallypoint.commands.problems import explain
from rallypoint.errors import RULES, Reason, Refusal
from rallypoint.rpc_status import DETAILS_KEY, to_status
from rallypoint.security.client import NO_SECURITY


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str = "", trailing: tuple[tuple[str, bytes], ...] = ()) -> None:
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


@pytest.fixture
def connection() -> Connection:
    return Connection("head:29400", Mock(spec=grpc.Channel), NO_SECURITY, 10.0)


STATUS_OF_CODE = {
    "INVALID_ARGUMENT": exits.USAGE,
    "NOT_FOUND": exits.REFUSED,
    "FAILED_PRECONDITION": exits.REFUSED,
    "RESOURCE_EXHAUSTED": exits.REFUSED,
    "ABORTED": exits.REFUSED,
    "OUT_OF_RANGE": exits.REFUSED,
    "UNAVAILABLE": exits.UNREACHABLE,
    "UNAUTHENTICATED": exits.NOT_ALLOWED,
    "PERMISSION_DENIED": exits.NOT_ALLOWED,
}


@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_has_a_line_and_a_status(reason: Reason, connection: Connection) -> None:
    refusal = Refusal(reason=reason, message="this is\nnot \x1b[1mpossible")
    trailing = ((DETAILS_KEY, to_status(refusal).SerializeToString()),)
    line, status = explain(Failed(grpc.StatusCode[refusal.code], trailing=trailing), connection)
    assert line.startswith(f"{reason.value}: this is not \\x1b[1mpossible")
    assert line.isprintable()
    assert status == STATUS_OF_CODE[RULES[reason].code]


@pytest.mark.parametrize(
    ("code", "details", "said", "status"),
    [
        ("UNAVAILABLE", "Connection refused", "no coordinator answers at head:29400: start one", exits.UNREACHABLE),
        ("UNAVAILABLE", "Socket closed", "--tls-ca is missing here (Socket closed)", exits.UNREACHABLE),
        ("DEADLINE_EXCEEDED", "", "no answer from head:29400 within 10 s", exits.UNREACHABLE),
        ("UNIMPLEMENTED", "Method not found!", "no coordinator, or one of an earlier release", exits.REFUSED),
        ("UNKNOWN", "a\nb", "head:29400 answers UNKNOWN: a b", exits.REFUSED),
    ],
)
def test_what_is_no_refusal(code: str, details: str, said: str, status: int, connection: Connection) -> None:
    line, given = explain(Failed(grpc.StatusCode[code], details), connection)
    assert said in line
    assert given == status
