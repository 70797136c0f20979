"""What is asked of whoever says whether something is well."""

from __future__ import annotations

import logging
from collections.abc import Callable

OVERALL = ""
"""The service that stands for all, as grpc.health.v1 has it."""

Check = Callable[[], bool]
"""Whether a service is well. Called from threads other than the agent's; one that raises is not well."""

logger = logging.getLogger(__name__)


def passes(name: str, check: Check) -> bool:
    """Whether the service of this name is well, an error being logged as the reason why it is not."""
    try:
        return check()
    except Exception:
        logger.exception("the health check of %s failed; not healthy", name or "the agent")
        return False
