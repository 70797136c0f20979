from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from rallypoint.errors import RULES, Detail, Reason, Refusal, Violation
from rallypoint.rpc_status import DETAILS_KEY, from_status, refusal_from_rpc_error, to_status
from unit.strategies import texts

refusals = st.builds(
    Refusal,
    reason=st.sampled_from(Reason),
    message=texts,
    field=texts,
    metadata=st.dictionaries(texts, texts, max_size=3),
    violations=st.lists(st.builds(Violation, texts, texts), max_size=3).map(tuple),
    retry_after_ms=st.none() | st.integers(0, 10**9),
)


class FailedCall(grpc.RpcError):
    def __init__(self, trailing_metadata: object) -> None:
        self._trailing_metadata = trailing_metadata

    def trailing_metadata(self) -> Any:
        return self._trailing_metadata


def what_counts(refusal: Refusal) -> tuple[object, ...]:
    """All that its rule puts on the wire."""
    details = refusal.rule.details
    at_fault = refusal.at_fault if {Detail.BAD_REQUEST, Detail.PRECONDITION_FAILURE} & {*details} else None
    retry_ms = refusal.retry_ms if Detail.RETRY_INFO in details else None
    return refusal.reason, refusal.message, refusal.metadata, at_fault, retry_ms


@given(refusals)
def test_a_refusal_survives_the_wire(refusal: Refusal) -> None:
    data = to_status(refusal).SerializeToString()
    received = from_status(status_pb2.Status.FromString(data))
    assert received is not None
    assert what_counts(received) == what_counts(refusal)
    assert refusal_from_rpc_error(FailedCall([("other", "x"), (DETAILS_KEY, data)])) == received


@pytest.mark.parametrize("reason", Reason)
def test_a_status_has_the_details_of_its_rule(reason: Reason) -> None:
    status = to_status(Refusal(reason=reason, message="no", field="jobs/train"))
    kinds = [detail.type_url.rpartition(".")[2] for detail in status.details]
    assert kinds == ["ErrorInfo", *RULES[reason].details]


def test_each_violation_is_told() -> None:
    violations = (Violation("hello.job_spec.min_nodes", "2, not 3"), Violation("hello.job_spec.max_nodes", "4, not 3"))
    status = to_status(Refusal(reason=Reason.SPEC_MISMATCH, message="2, not 3", violations=violations))
    failure = error_details_pb2.PreconditionFailure()
    assert status.details[1].Unpack(failure)
    assert [(found.type, found.subject, found.description) for found in failure.violations] == [
        ("SPEC_MISMATCH", *violation) for violation in violations
    ]


def test_the_delay_is_that_of_whoever_knows_better() -> None:
    for known_ms, told_ms in [(None, RULES[Reason.RECOVERING].retry_after_ms), (1_234, 1_234), (0, 0)]:
        status = to_status(Refusal(reason=Reason.RECOVERING, message="wait", retry_after_ms=known_ms))
        received = from_status(status)
        assert received is not None
        assert received.retry_ms == told_ms


@pytest.mark.parametrize("reason", Reason)
def test_only_who_may_ask_again_is_told_when(reason: Reason) -> None:
    assert not RULES[reason].final or Detail.RETRY_INFO not in RULES[reason].details


@pytest.mark.parametrize("reason", Reason)
def test_the_status_has_the_code_of_the_reason(reason: Reason) -> None:
    status = to_status(Refusal(reason=reason, message="no"))
    assert code_pb2.Code.Name(status.code) == RULES[reason].code


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
