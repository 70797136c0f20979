"""Ending a job for everybody, on behalf of one torchrun."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rallypoint.model import Endpoint
from rallypoint_agent import grpc_setup

CALL_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


def cancel_job(endpoints: Iterable[Endpoint], job: str, reason: str) -> bool:
    """Ask each endpoint in turn until one has noted it. False, and a line in the log, if none has."""
    grpc_setup.prepare_environment()
    import grpc

    from rallypoint.v1.job_service_pb2 import CancelJobRequest
    from rallypoint.v1.job_service_pb2_grpc import JobServiceStub

    request = CancelJobRequest(name=f"jobs/{job}", reason=reason[:1000])
    for endpoint in endpoints:
        target = grpc_setup.target(endpoint)
        with grpc.insecure_channel(target, options=grpc_setup.channel_options(use_proxy=False)) as channel:
            try:
                JobServiceStub(channel).CancelJob(request, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                logger.warning("job %s could not be closed at %s: %s", job, target, error)
            else:
                return True
    return False
