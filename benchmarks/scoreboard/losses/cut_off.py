"""Nodes that are cut off from the coordinator, each on a host of its own: a network namespace.

A process of its own measures, in namespaces of its own: ``python -m scoreboard.losses FOLDER SAMPLES``, which prints
what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

from scoreboard.losses.births import Births, last_ns, now_ns, seconds
from scoreboard.losses.crew import Crew
from scoreboard.losses.inbox import Inbox
from support import netns
from support.cluster import ProcessCluster
from support.netns import Network, both_ways
from support.processes import is_alive

LEASE_S = 8
"""Near the shortest that is allowed: the 30 s that a job has by default would tell nothing more."""
COORDINATOR = "coordinator"
GAP_S = 0.37
"""Between one cut and the next, so that they fall into different parts of the heartbeat interval."""

Pair = tuple[str, str]
"""The node that stays, and the one that is cut off."""


def why_impossible() -> str:
    """Why nodes cannot be cut off here; empty if they can."""
    return netns.why_impossible()


def cut_off(folder: Path, samples: int) -> list[float]:
    """For each of so many jobs of two nodes, seconds from when one was cut off until the other's next workers began."""
    command, env = netns.command_inside([sys.executable, "-m", "scoreboard.losses", str(folder), str(samples)])
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    took: list[float] = json.loads(done.stdout)
    return took


def cut_off_inside(folder: Path, samples: int) -> list[float]:
    """The same, in a process that is in namespaces of its own."""
    pairs = [(f"stays-{number}", f"goes-{number}") for number in range(samples)]
    network = Network([COORDINATOR, *(node for pair in pairs for node in pair)])
    with Inbox(folder) as inbox, ProcessCluster(folder, network) as cluster:
        cluster.coordinator("--data-dir", str(folder / "data"))
        births = Births(inbox)
        crews = {pair: _crew(cluster, births, pair) for pair in pairs}
        for crew in crews.values():
            crew.wait_round(2)
            crew.rest()
        return _cut(network, crews)


def _crew(cluster: ProcessCluster, births: Births, pair: Pair) -> Crew:
    crew = Crew(cluster, births, f"job-of-{pair[0]}", "--nnodes", "1:2", "--lease-ttl", f"{LEASE_S}s")
    crew.start(*pair)
    return crew


def _cut(network: Network, crews: dict[Pair, Crew]) -> list[float]:
    with contextlib.ExitStack() as silences:
        cuts_ns = []
        for _, goes in crews:
            cuts_ns.append(now_ns())
            silences.enter_context(network.silence(*both_ways(goes, COORDINATOR)))
            time.sleep(GAP_S)
        return [_wait(crew, goes, at_ns) for ((_, goes), crew), at_ns in zip(crews.items(), cuts_ns, strict=True)]


def _wait(crew: Crew, goes: str, cut_ns: int) -> float:
    family = crew.family(goes)
    workers = crew.wait_round(1)
    assert not any(map(is_alive, family)), f"{goes} still has workers beside those of the next round"
    return seconds(cut_ns, last_ns(workers))
