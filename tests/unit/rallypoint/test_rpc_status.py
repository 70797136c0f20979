from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from rallypoint.errors import CODES, Reason, Refusal
from rallypoint.rpc_status import DETAILS_KEY, from_status, refusal_from_rpc_error, to_status
from unit.strategies import texts

refusals = st.builds(
    Refusal,
    reason=st.sampled_from(Reason),
    message=texts,
    field=texts,
    metadata=st.dictionaries(texts, texts, max_size=3),
)


class FailedCall(grpc.RpcError):
    def __init__(self, trailing_metadata: object) -> None:
        self._trailing_metadata = trailing_metadata

    def trailing_metadata(self) -> Any:
        return self._trailing_metadata


@given(refusals)
def test_a_refusal_survives_the_wire(refusal: Refusal) -> None:
    data = to_status(refusal).SerializeToString()
    assert from_status(status_pb2.Status.FromString(data)) == refusal
    assert refusal_from_rpc_error(FailedCall([("other", "x"), (DETAILS_KEY, data)])) == refusal


@pytest.mark.parametrize("reason", Reason)
def test_the_status_has_the_code_of_the_reason(reason: Reason) -> None:
    status = to_status(Refusal(reason=reason, message="no"))
    assert code_pb2.Code.Name(status.code) == CODES[reason]


@pytest.mark.parametrize(
    "trailing_metadata",
    [
        None,
        [],
        [(DETAILS_KEY, b"\xff\xff")],
        [(DETAILS_KEY, status_pb2.Status(code=14).SerializeToString())],
    ],
)
def test_another_failure_is_no_refusal(trailing_metadata: object) -> None:
    assert refusal_from_rpc_error(FailedCall(trailing_metadata)) is None


def test_an_error_without_metadata_is_no_refusal() -> None:
    assert refusal_from_rpc_error(grpc.RpcError()) is None


@pytest.mark.parametrize(("reason", "domain"), [("FROM_THE_FUTURE", "rallypoint"), ("INVALID_FIELD", "elsewhere")])
def test_a_foreign_refusal_is_left_to_its_code(reason: str, domain: str) -> None:
    from google.rpc.error_details_pb2 import ErrorInfo

    status = status_pb2.Status(code=9, message="no")
    status.details.add().Pack(ErrorInfo(reason=reason, domain=domain))
    assert from_status(status) is None
