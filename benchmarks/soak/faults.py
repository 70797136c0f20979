"""What strikes a job, and its price. The coordinator is struck by :mod:`soak.__main__`, at no price at all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soak.ledger import NONE, ONE, SOME, Price, Rest

if TYPE_CHECKING:
    from soak.job import SoakJob

BRIEFLY_S = 1.0

FAILURE = Price(1, ONE, frozenset({"WORKER_FAILED"}))
NOTHING = Price(0, NONE, frozenset())
COMES_BACK = "NODE_JOINED"


def _free(*causes: str) -> Price:
    """A node less and, once it is back, a node more."""
    return Price(0, SOME, frozenset({*causes, COMES_BACK}))


@dataclass(frozen=True)
class Fault:
    """``strike`` returns once all that it does is done. ``weight``: how often it is chosen."""

    price: Price
    strike: Callable[[SoakJob, Rest], None]
    weight: int


def kill_worker(job: SoakJob, rest: Rest) -> None:
    job.signal(signal.SIGKILL, _some_worker(job, rest))


def end_worker(job: SoakJob, rest: Rest) -> None:
    """It did not have to: a failure."""
    job.signal(signal.SIGTERM, _some_worker(job, rest))


def kill_two_workers(job: SoakJob, rest: Rest) -> None:
    job.signal(signal.SIGKILL, *job.rng.sample(sorted(rest.pids.values()), 2))


def kill_keeper(job: SoakJob, rest: Rest) -> None:
    job.signal(signal.SIGKILL, job.keeper(job.some_node()))


def kill_agent(job: SoakJob, rest: Rest) -> None:
    job.replace(job.some_node(), signal.SIGKILL)


def end_agent(job: SoakJob, rest: Rest) -> None:
    """While there is no coordinator its goodbye comes as an obituary, so the node counts as lost."""
    job.replace(job.some_node(), signal.SIGTERM)


def lose_agent(job: SoakJob, rest: Rest) -> None:
    """As above, but the job goes on without the node first."""
    node = job.some_node()
    job.end(node, signal.SIGKILL)
    job.wait_round(rest.round + 1, job.size - 1)
    job.start(node)


def drain(job: SoakJob, rest: Rest) -> None:
    node = job.some_node()
    job.view.drain(job.name, node)
    job.wait_end(node)
    job.start(node)


def restart(job: SoakJob, rest: Rest) -> None:
    job.view.restart(job.name)


def freeze_agent_briefly(job: SoakJob, rest: Rest) -> None:
    pid = job.agent(job.some_node())
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(BRIEFLY_S)  # there is nothing to be seen that would end this
    finally:
        os.kill(pid, signal.SIGCONT)


def freeze_agent_past_its_lease(job: SoakJob, rest: Rest) -> None:
    """The keeper fences, the coordinator counts the node as lost, and the others go on; then it comes back."""
    pid = job.agent(job.some_node())
    os.kill(pid, signal.SIGSTOP)
    try:
        job.wait_round(rest.round + 1, job.size - 1)
    finally:
        os.kill(pid, signal.SIGCONT)


def _some_worker(job: SoakJob, rest: Rest) -> int:
    return job.rng.choice(sorted(rest.pids.values()))


FAULTS: Mapping[str, Fault] = {
    "worker SIGKILL": Fault(FAILURE, kill_worker, 4),
    "worker SIGTERM": Fault(FAILURE, end_worker, 2),
    "two workers SIGKILL": Fault(FAILURE, kill_two_workers, 2),
    "keeper SIGKILL": Fault(FAILURE, kill_keeper, 2),
    "agent SIGKILL": Fault(_free("NODE_LOST"), kill_agent, 3),
    "agent SIGTERM": Fault(_free("NODE_LEFT", "NODE_LOST"), end_agent, 2),
    "agent SIGKILL, back after a round": Fault(_free("NODE_LOST"), lose_agent, 2),
    "agent SIGSTOP briefly": Fault(NOTHING, freeze_agent_briefly, 1),
    "agent SIGSTOP past its lease": Fault(_free("NODE_LOST"), freeze_agent_past_its_lease, 1),
    "drain": Fault(_free("NODE_DRAINED"), drain, 2),
    "restart by an operator": Fault(Price(0, ONE, frozenset({"RESTART_ASKED"})), restart, 2),
}
