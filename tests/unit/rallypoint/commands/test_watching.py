"""How a watch goes on over what breaks it."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from rallypoint.commands import watching
from rallypoint.commands.session import Session
from rallypoint.errors import Reason, Refusal
from rallypoint.rpc_status import DETAILS_KEY, to_status
from rallypoint.v1 import job_service_pb2 as pb


class Broken(grpc.RpcError):
    """A stream that ends with a refusal; with UNAVAILABLE and nothing else, if there is none."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self._refusal = refusal

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self._refusal.code] if self._refusal else grpc.StatusCode.UNAVAILABLE

    def trailing_metadata(self) -> Any:
        return ((DETAILS_KEY, to_status(self._refusal).SerializeToString()),) if self._refusal else ()


def refused(reason: Reason, retry_after_ms: int | None = None) -> Broken:
    return Broken(Refusal(reason=reason, message="no", retry_after_ms=retry_after_ms))


class Coordinator:
    """Each stream tells its messages, by their tokens, and ends as it is told to."""

    def __init__(self, *streams: tuple[list[str], Broken | None]) -> None:
        self._streams = list(streams)
        self.jobs = SimpleNamespace(WatchJob=None)
        self.asked: list[str] = []

    def follow(self, method: Any, request: pb.WatchJobRequest) -> Iterator[pb.WatchJobResponse]:
        self.asked.append(request.resume_token)
        tokens, end = self._streams.pop(0)
        for token in tokens:
            yield pb.WatchJobResponse(resume_token=token)
        if end is not None:
            raise end


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def watched(coordinator: Coordinator) -> list[str]:
    session = Session(Namespace(job="train"), cast(Any, coordinator), cast(Any, None))
    return [message.resume_token for message in watching.watch(session)]


def test_it_resumes_with_the_newest_token_and_waits_longer_each_time(
    slept: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator = Coordinator((["a", "b"], Broken()), ([], Broken()), ([], Broken()), (["c"], None))
    assert watched(coordinator) == ["a", "b", "c"]
    assert coordinator.asked == ["", "b", "b", "b"]
    assert slept == [0.2, 0.4, 0.8]
    assert capsys.readouterr().err == "the watch broke (UNAVAILABLE); trying again\n"


@pytest.mark.parametrize(
    ("end", "least_s"),
    [
        (refused(Reason.LIMIT_REACHED), 1.0),
        (refused(Reason.RECOVERING, 3_000), 3.0),
        (refused(Reason.RECOVERING, 10), 0.2),
        (refused(Reason.LIMIT_REACHED, 86_400_000), 60.0),
    ],
)
def test_it_waits_as_long_as_the_coordinator_asks_it_to(slept: list[float], end: Broken, least_s: float) -> None:
    assert watched(Coordinator((["a"], end), ([], None))) == ["a"]
    assert len(slept) == 1
    assert least_s <= slept[0] <= 1.5 * least_s


def test_an_expired_token_costs_no_wait(slept: list[float]) -> None:
    coordinator = Coordinator((["a"], refused(Reason.WATCH_EXPIRED)), (["b"], None))
    assert watched(coordinator) == ["a", "b"]
    assert (coordinator.asked, slept) == (["", ""], [])


@pytest.mark.parametrize(
    ("tokens", "end"), [([], Broken()), ([], refused(Reason.RECOVERING)), (["a"], refused(Reason.PERMISSION_DENIED))]
)
def test_what_trying_again_does_not_change_is_raised(slept: list[float], tokens: list[str], end: Broken) -> None:
    with pytest.raises(Broken):
        watched(Coordinator((tokens, end)))
    assert slept == []
