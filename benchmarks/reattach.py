"""How long agents take to be attached again once a coordinator that was killed serves again: ``make reattach N=3``.

Counted from when the new coordinator says that it listens until it lists each node as attached.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc

from support.cluster import ProcessCluster
from support.processes import wait_until

NODES = tuple(f"node-{number}" for number in range(6))
OUTAGES_S = (0.0, 1.0, 5.0, 15.0)


def measure(cluster: ProcessCluster, outage_s: float, *flags: str) -> list[float]:
    """Kill the coordinator, be without one for so long, and give each node's delay in seconds."""
    coordinator = next(process for process in reversed(cluster.processes) if process.name.startswith("coordinator"))
    coordinator.popen.kill()
    coordinator.wait()
    time.sleep(outage_s)
    cluster.coordinator_again(*flags)
    began = time.monotonic()
    seen: dict[str, float] = {}

    def all_attached() -> bool:
        with contextlib.suppress(grpc.RpcError):
            for name, node in cluster.nodes("job").items():
                if node.attached:
                    seen.setdefault(name, time.monotonic() - began)
        return len(seen) == len(NODES)

    wait_until(all_attached, 60, "not all are attached again")
    return sorted(seen.values())


def main(runs: int) -> int:
    with tempfile.TemporaryDirectory(prefix="rallypoint-reattach-") as folder, ProcessCluster(Path(folder)) as cluster:
        flags = ("--data-dir", f"{folder}/data")
        cluster.coordinator(*flags)
        argv = ("--rdzv-id", "job", "--nnodes", str(len(NODES)), cluster.worker("wait.py"))
        for node in NODES:
            cluster.agent(node, *argv)
        cluster.wait_for_round("job", 0)
        for outage_s in OUTAGES_S:
            delays = sorted(delay for _ in range(runs) for delay in measure(cluster, outage_s, *flags))
            print(
                f"{outage_s:4g} s without a coordinator: attached again after"
                f" {statistics.median(delays):.2f} s (median), {delays[-1]:.2f} s (slowest of {len(delays)})",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
