"""Watching a job for as long as it takes, whatever happens to the coordinator meanwhile."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator

import grpc

from rallypoint.commands.session import Session
from rallypoint.errors import RETRYABLE_CODES, Reason
from rallypoint.rpc_status import refusal_from_rpc_error, retry_s
from rallypoint.v1 import job_service_pb2 as pb

_DELAY_S = 0.2
_DELAY_MAX_S = 5.0
_TOLD_MAX_S = 60.0
"""What counts of a time that the coordinator asks to be left alone for."""


def watch(session: Session, token: str = "") -> Iterator[pb.WatchJobResponse]:
    """What WatchJob tells, over as many streams as it takes until the job is decided.

    A snapshot that comes later than first says that something was missed. Raises RpcError for what trying again would
    not change, and for a coordinator that has not answered at all. Waits as long as a coordinator asks it to.
    """
    delay_s = _DELAY_S
    while True:
        request = pb.WatchJobRequest(name=f"jobs/{session.arguments.job}", resume_token=token)
        try:
            for message in session.connection.follow(session.connection.jobs.WatchJob, request):
                token, delay_s = message.resume_token, _DELAY_S
                yield message
            return
        except grpc.RpcError as error:
            if token and _has_expired(error):
                token = ""
                continue
            if not token or not will_pass(error):
                raise
            if delay_s == _DELAY_S:
                print(f"the watch broke ({error.code().name}); trying again", file=sys.stderr, flush=True)
            told_s = min(retry_s(error), _TOLD_MAX_S) * random.uniform(1.0, 1.5)
        time.sleep(max(delay_s, told_s))
        delay_s = min(2 * delay_s, _DELAY_MAX_S)


def will_pass(error: grpc.RpcError) -> bool:
    """Whether trying again may help."""
    return error.code().name in RETRYABLE_CODES


def _has_expired(error: grpc.RpcError) -> bool:
    refusal = refusal_from_rpc_error(error)
    return refusal is not None and refusal.reason is Reason.WATCH_EXPIRED
