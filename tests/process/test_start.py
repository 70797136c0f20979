"""What an agent imports in its life: its start, and what it weighs, are little else. Held by names, not by time."""

from __future__ import annotations

import re
from pathlib import Path

from support.cluster import ProcessCluster

IMPORTED = re.compile(r"^import time: +\d+ \| +\d+ \| *(\S+)$", re.MULTILINE)

LEFT_OUT = {
    "email": "importlib.metadata has it",
    "_hashlib": "3 MB of OpenSSL",
    "google.rpc": "for refusals",
    "grpc_health.v1": "for health checks",
    "grpc_reflection.v1alpha": "a coordinator's",
    "grpc_status": "a refusal is read without it",
    "http": "for health checks over HTTP",
    "importlib.metadata": "for what is plugged in",
    "logging.handlers": "for senders of mail, and of what is pickled",
    "multiprocessing": "for functions as workers",
    "platform": "uuid has it",
    "psutil": "what it tells, /proc tells",
    "rallypoint.security.advice": "for who cannot attach",
    "rallypoint_agent.accelerators": "for --nproc-per-node gpu, and --numa-binding",
    "rallypoint_agent.embedded_coordinator": "for --standalone",
    "rallypoint_agent.file_timer": "for the watchdog",
    "rallypoint_agent.function_entrypoint": "for functions as workers",
    "rallypoint_agent.health_service": "for health checks",
    "rallypoint_agent.hosted_coordinator": "for torchrun's own lines",
    "rallypoint_agent.link.probe": "for who cannot attach",
    "rallypoint_agent.numa": "for --numa-binding",
    "rallypoint_agent.torch_store": "for --rdzv-conf store=agent",
    "rallypoint_coordinator": "another process",
    "sqlite3": "a coordinator's",
    "_ssl": "gRPC has its own",
    "torch": "a worker's",
    "uuid": "os.urandom does",
    "zipfile": "importlib.metadata has it",
}
"""Who would have it imported."""


def test_an_agent_imports_nothing_that_it_was_not_asked_for(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster:
        cluster.coordinator()
        agent = cluster.agent("a", "--rdzv-id", "job", "--no-python", "true", PYTHONPROFILEIMPORTTIME="1")
        assert agent.wait() == 0
    imported = set(IMPORTED.findall(agent.err.read_text()))
    assert {"grpc", "rallypoint_agent.link.stream"} <= imported, "the list is read"
    assert not {name for name in LEFT_OUT if any(f"{module}.".startswith(f"{name}.") for module in imported)}
