"""The resource names of JobService, as requests give them."""

from __future__ import annotations

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.validation import JOB_NAME, NODE_NAME


def parse_job(name: str, field: str) -> str:
    """The job in ``jobs/{job}``. Raises RefusedError."""
    collection, _, job = name.partition("/")
    if collection == "jobs" and JOB_NAME.holds(job):
        return job
    raise invalid(field, f"{field} must be jobs/JOB, where JOB must {JOB_NAME.must}")


def parse_node(name: str, field: str) -> tuple[str, str]:
    """The job and the node in ``jobs/{job}/nodes/{node}``. Raises RefusedError."""
    parent, _, node = name.rpartition("/nodes/")
    if not NODE_NAME.holds(node):
        raise invalid(field, f"{field} must be jobs/JOB/nodes/NODE, where NODE must {NODE_NAME.must}")
    return parse_job(parent, field), node


def invalid(field: str, message: str) -> RefusedError:
    return RefusedError(Refusal(reason=Reason.INVALID_FIELD, message=message, field=field, metadata={"field": field}))
