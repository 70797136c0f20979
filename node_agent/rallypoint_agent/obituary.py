"""What the keeper runs after its agent died and no worker is alive any more: tells the coordinator so.

``python -m rallypoint_agent.obituary``, with the command line of :func:`obituary_command`. It tries for as long as the
lease may last: afterwards the coordinator knows without it. Exit status 0: the coordinator knows, or has no such lease;
1: it could not be told.

The job waits for this process, so it imports little: gRPC and the generated code are nearly all of its start.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from rallypoint.limits import LEAVE_MESSAGE_BYTES
from rallypoint.security.client import NO_SECURITY, ClientSecurity, CredentialsError, call_metadata, open_channel
from rallypoint.texts import cut
from rallypoint_agent import grpc_setup
from rallypoint_agent.backoff import Backoff

if TYPE_CHECKING:
    from rallypoint.v1.agent_service_pb2 import ReportGoneRequest

_CALL_TIMEOUT_S = 5.0
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 1.0
_LONGEST_TOLD_S = 5.0
"""What counts of a time that the coordinator asks to be left alone for: the job waits for this."""

_NOTHING_TO_REPORT = "NOT_FOUND"
_FINAL = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED"})
"""Status codes after which asking again must fail again. Not UNAUTHENTICATED: the token may be amid its rotation."""


class Obituary(NamedTuple):
    """Who is gone, and whom to tell: hosts and ports.

    ``ttl_ms`` is how long it is worth trying. It goes on a command line and into a file: nothing in it is secret.
    It is the same for every round of a lease, so that no round waits for it to be made again.
    """

    endpoints: tuple[tuple[str, int], ...]
    job: str
    job_uid: str
    lease_id: int
    incarnation: str
    message: str
    ttl_ms: int
    use_proxy: bool = False
    security: ClientSecurity = NO_SECURITY


def obituary_of(fields: list[Any]) -> Obituary:
    """From JSON. Raises TypeError for what is none."""
    obituary = Obituary(*fields)
    return obituary._replace(security=ClientSecurity.of(obituary.security))


def obituary_command(obituary: Obituary) -> list[str]:
    """The command that delivers it."""
    # -P: the working directory is the user's, and may hold a json.py.
    return [sys.executable, "-P", "-m", "rallypoint_agent.obituary", json.dumps(obituary)]


def main(argv: list[str]) -> int:
    failure = _deliver(obituary_of(json.loads(argv[1])))
    if failure is None:
        return 0
    print(f"rallypoint: the coordinator was not told that the agent is gone: {failure}", file=sys.stderr)
    return 1


def _deliver(obituary: Obituary) -> str | None:
    """Why it could not be delivered; None if it was, or need not be. Tries at least once."""
    until = time.monotonic() + obituary.ttl_ms / 1000
    backoff = Backoff(_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S, longest_told_s=_LONGEST_TOLD_S)
    request = _request(obituary)
    failure = "there is no endpoint"
    for endpoint in itertools.cycle(obituary.endpoints):
        answer = _call(request, endpoint, obituary)
        if answer.code in ("OK", _NOTHING_TO_REPORT):
            return None
        failure = f"{grpc_setup.target(endpoint)}: {answer.code}: {answer.details}"
        left_s = until - time.monotonic()
        if answer.code in _FINAL or left_s <= 0:
            break
        time.sleep(min(backoff.next_s(answer.retry_s), left_s))
    return failure


def _request(obituary: Obituary) -> ReportGoneRequest:
    grpc_setup.prepare_environment()
    from rallypoint.v1.agent_service_pb2 import ReportGoneRequest

    return ReportGoneRequest(
        job=obituary.job,
        job_uid=obituary.job_uid,
        lease_id=obituary.lease_id,
        incarnation=obituary.incarnation,
        message=cut(obituary.message, LEAVE_MESSAGE_BYTES),
    )


class _Answer(NamedTuple):
    """The status code by its name, what it says, and after how long to ask again at the earliest."""

    code: str
    details: str
    retry_s: float = 0.0


def _call(request: ReportGoneRequest, endpoint: tuple[str, int], obituary: Obituary) -> _Answer:
    from rallypoint.rpc_status import retry_s
    from rallypoint.v1.agent_service_pb2_grpc import AgentServiceStub

    options, security = grpc_setup.channel_options(use_proxy=obituary.use_proxy), obituary.security
    try:
        metadata = call_metadata(security)
        with open_channel(grpc_setup.target(endpoint), security, options) as channel:
            call = AgentServiceStub(channel).ReportGone.future(request, timeout=_CALL_TIMEOUT_S, metadata=metadata)
            error = call.exception()  # waits
            return _Answer(call.code().name, call.details() or "", retry_s(error) if error else 0.0)
    except CredentialsError as error:  # amid a rotation
        return _Answer("UNAVAILABLE", str(error))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
