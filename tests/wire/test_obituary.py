"""The obituary's process against a scripted coordinator."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Endpoint
from rallypoint_agent.obituary import Obituary, main, obituary_command
from support.fake_coordinator import WAIT_S, FakeCoordinator, refusing_endpoint


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator()
    yield fake
    fake.close()


@pytest.fixture
def closed() -> Iterator[Endpoint]:
    with refusing_endpoint() as endpoint:
        yield endpoint


def obituary(*endpoints: Endpoint, message: str = "killed", ttl_ms: int = 10_000) -> Obituary:
    return Obituary(
        endpoints=endpoints,
        job="job-1",
        job_uid="uid-1",
        lease_id=7,
        incarnation="incarnation-1",
        message=message,
        ttl_ms=ttl_ms,
    )


def deliver(told: Obituary) -> subprocess.CompletedProcess[str]:
    return subprocess.run(obituary_command(told), capture_output=True, text=True, timeout=WAIT_S * 4, check=False)


def test_tells_who_is_gone(coordinator: FakeCoordinator, closed: Endpoint) -> None:
    done = deliver(obituary(closed, coordinator.endpoint, message="ü" * 1000))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    request = coordinator.obituaries.get_nowait()
    assert (request.job, request.job_uid, request.lease_id) == ("job-1", "uid-1", 7)
    assert (request.incarnation, request.message) == ("incarnation-1", "ü" * 512)


@pytest.mark.parametrize("reason", [Reason.SHUTTING_DOWN, Reason.UNAUTHENTICATED])
def test_tries_again_until_it_is_heard(reason: Reason, coordinator: FakeCoordinator) -> None:
    coordinator.obituary_refusals = [Refusal(reason=reason, message="wait")] * 2
    assert deliver(obituary(coordinator.endpoint)).returncode == 0
    assert coordinator.obituaries.qsize() == 3


@pytest.mark.parametrize(("told_ms", "least_s", "most_s"), [(700, 0.7, 1.05), (3_600_000, 5.0, 7.5)])
def test_waits_as_long_as_it_is_asked_to_within_reason(
    told_ms: int, least_s: float, most_s: float, coordinator: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    coordinator.obituary_refusals = [Refusal(reason=Reason.LIMIT_REACHED, message="wait", retry_after_ms=told_ms)]
    assert main(["", json.dumps(obituary(coordinator.endpoint, ttl_ms=60_000))]) == 0
    assert len(slept) == 1
    assert least_s <= slept[0] <= most_s


def test_an_unknown_lease_needs_no_obituary(coordinator: FakeCoordinator) -> None:
    coordinator.obituary_refusals = [Refusal(reason=Reason.UNKNOWN_LEASE, message="which?")]
    assert deliver(obituary(coordinator.endpoint)).returncode == 0
    assert coordinator.obituaries.qsize() == 1


def test_gives_up_when_it_makes_no_sense(coordinator: FakeCoordinator) -> None:
    coordinator.obituary_refusals = [Refusal(reason=Reason.INVALID_FIELD, message="job must be a name")]
    done = deliver(obituary(coordinator.endpoint))
    assert done.returncode == 1
    assert "INVALID_ARGUMENT: job must be a name" in done.stderr


def test_gives_up_when_the_lease_has_run_out(closed: Endpoint) -> None:
    done = deliver(obituary(closed, ttl_ms=200))
    assert done.returncode == 1
    assert "was not told that the agent is gone" in done.stderr
    assert "UNAVAILABLE" in done.stderr
