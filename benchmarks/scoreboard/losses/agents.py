"""Agents that are killed, that join, that stand by; a coordinator that is killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rallypoint.v1 import job_service_pb2 as pb
from scoreboard.losses.births import Births, seconds
from scoreboard.losses.crew import Crew
from scoreboard.losses.inbox import Inbox
from support.cluster import ProcessCluster
from support.processes import is_alive, wait_until

JOB = "losses"
THREE = ("node-0", "node-1", "node-2")
ELASTIC = ("--nnodes", "1:3", "--last-call-timeout", "5s")
FIXED = ("--nnodes", "3")


@dataclass
class ThreeAgents:
    """What was seen of a job with one to three nodes, in seconds."""

    trees: list[float] = field(default_factory=list)
    """From the SIGKILL of an agent until its workers and all that they started were gone."""
    survivors: list[float] = field(default_factory=list)
    """From there until all workers of the two others' next round had begun."""
    survivors_of_rank_0: list[float] = field(default_factory=list)
    third: list[float] = field(default_factory=list)
    """From when the coordinator took a third node in until all workers of the three had begun."""


@contextmanager
def three_agents(folder: Path, *flags: str) -> Iterator[Crew]:
    """A job of three nodes that runs, with a coordinator that keeps its journal on the disk."""
    with Inbox(folder) as inbox, ProcessCluster(folder) as cluster:
        cluster.coordinator("--data-dir", str(folder / "data"))
        crew = Crew(cluster, Births(inbox), JOB, *flags)
        crew.start(*THREE)
        crew.wait_round(3)
        crew.rest()
        yield crew


def lose_and_gain(folder: Path, samples: int) -> ThreeAgents:
    """SIGKILL so many agents of rank 0, and as many others; after each a node that is new takes the place."""
    seen = ThreeAgents()
    with three_agents(folder, *ELASTIC) as crew:
        for number in range(2 * samples):
            rank = (0, 1, 0, 2)[number % 4]
            loss = crew.lose(crew.nodes[rank], nodes_left=2)
            seen.trees.append(loss.tree_gone_s)
            (seen.survivors if rank else seen.survivors_of_rank_0).append(loss.next_round_s)
            crew.rest()
            seen.third.append(_join(crew, f"node-{3 + number}"))
            crew.rest()
    return seen


def _join(crew: Crew, node: str) -> float:
    crew.start(node)
    workers = crew.wait_round(3)
    joined = crew.cluster.events(crew.job, pb.JOB_EVENT_KIND_NODE_JOINED)
    (attached_ns,) = [event.event_time.ToNanoseconds() for event in joined if event.node == node]
    return seconds(attached_ns, max(worker.wall_ns for worker in workers))


def lose_beside_a_spare(folder: Path, samples: int) -> list[float]:
    """Seconds from the SIGKILL of one of three agents until workers of as many nodes as before had begun."""
    took = []
    with three_agents(folder, *FIXED) as crew:
        for number in range(samples):
            spare = f"spare-{number}"
            crew.start(spare)
            wait_until(partial(_stands_by, crew, spare), message=f"{spare} does not stand by")
            crew.rest()
            took.append(crew.lose(crew.nodes[number % 3], nodes_left=3).next_round_s)
            assert spare in crew.nodes, "nobody else was there"
    return took


def _stands_by(crew: Crew, node: str) -> bool:
    found = crew.cluster.nodes(crew.job).get(node)
    return found is not None and found.state == pb.NODE_STATE_STANDBY


def lose_coordinators(folder: Path, samples: int) -> list[bool]:
    """For so many SIGKILLs of the coordinator in a row whether every process of the workers outlived it."""
    outlived = []
    with three_agents(folder, *FIXED) as crew:
        for _ in range(samples):
            coordinator = [process for process in crew.cluster.processes if process.name.startswith("coordinator")][-1]
            coordinator.signal(signal.SIGKILL)
            coordinator.wait()
            crew.cluster.coordinator_again("--data-dir", str(folder / "data"))
            wait_until(partial(_all_attached, crew), message="not all agents came back")
            outlived.append(_nothing_began_or_ended(crew))
    return outlived


def _all_attached(crew: Crew) -> bool:
    nodes = crew.cluster.nodes(crew.job)
    return nodes.keys() == set(THREE) and all(node.attached for node in nodes.values())


def _nothing_began_or_ended(crew: Crew) -> bool:
    job = crew.cluster.job(crew.job)
    alive = all(is_alive(pid) for worker in crew.workers for pid in worker.family)
    return alive and not crew.began_since() and (job.round, job.restart_count) == (crew.round, 0)
