"""Ending a job for everybody, on behalf of one torchrun."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rallypoint.model import Endpoint
from rallypoint.security.client import ClientSecurity, CredentialsError, call_metadata, open_channel
from rallypoint_agent import grpc_setup

CALL_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


def cancel_job(endpoints: Iterable[Endpoint], job: str, reason: str, security: ClientSecurity) -> bool:
    """Ask each endpoint in turn until one has noted it. False, and a line in the log, if none has."""
    grpc_setup.prepare_environment()
    import grpc

    from rallypoint.v1.job_service_pb2 import CancelJobRequest
    from rallypoint.v1.job_service_pb2_grpc import JobServiceStub

    request = CancelJobRequest(name=f"jobs/{job}", reason=reason[:1000])
    for endpoint in endpoints:
        target = grpc_setup.target(endpoint)
        try:
            metadata = call_metadata(security)
            with open_channel(target, security, grpc_setup.channel_options(use_proxy=False)) as channel:
                JobServiceStub(channel).CancelJob(request, timeout=CALL_TIMEOUT_S, metadata=metadata)
        except (grpc.RpcError, CredentialsError) as error:
            logger.warning("job %s could not be closed at %s: %s", job, target, error)
        else:
            return True
    return False
