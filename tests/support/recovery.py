"""One real gloo job: three agents with a worker each, one worker SIGKILLed in the middle."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from rallypoint.v1 import types_pb2
from support.cluster import Process, ProcessCluster
from support.processes import wait_until

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "ddp_digits.py")
NODES = ("node-a", "node-b", "node-c")
BEGAN = r"\[default0\]:rank \d+ of 3, restart (\d+)"


@dataclass(frozen=True)
class Recovery:
    """What was seen. ``restart_counts``: for each agent, those its workers began with."""

    exit_codes: list[int]
    restart_counts: list[list[int]]
    job_restart_count: int
    state: str
    accuracy: float
    resumed_from: list[int]
    transcript: str

    @property
    def in_one_restart(self) -> bool:
        """Whether the job succeeded, every agent having seen restart 0 and then restart 1, and nothing else."""
        once = all(counts == [0, 1] for counts in self.restart_counts)
        return self.exit_codes == [0, 0, 0] and once and self.job_restart_count == 1 and len(self.resumed_from) == 1


def recover(folder: Path, victim: int, *, epochs: int = 12, at_epoch: int = 4) -> Recovery:
    """Train, SIGKILL the worker of rank ``victim`` once ``at_epoch`` is reached, and train to the end."""
    with ProcessCluster(folder) as cluster:
        cluster.coordinator()
        flags = ["--rdzv-id", "digits", "--nnodes", "3", "--max-restarts", "3", "--log-dir", str(folder / "logs")]
        script = [
            EXAMPLE,
            "--epochs",
            str(epochs),
            "--checkpoint",
            str(folder / "checkpoint.pt"),
            "--step-delay",
            "0.01",
        ]
        agents = [cluster.agent(node, *flags, *script, GLOO_SOCKET_IFNAME="lo") for node in NODES]
        wait_until(lambda: any(_reached(agent, at_epoch) for agent in agents), 90, "the training does not begin")
        workers = {worker.rank: worker for worker in cluster.workers("digits")}
        os.kill(workers[victim].pid, signal.SIGKILL)
        exit_codes = [agent.wait(120) for agent in agents]
        job = cluster.job("digits")
        output = "".join(agent.output for agent in agents)
        return Recovery(
            exit_codes=exit_codes,
            restart_counts=[[int(count) for count in re.findall(BEGAN, agent.output)] for agent in agents],
            job_restart_count=job.restart_count,
            state=types_pb2.JobState.Name(job.state),
            accuracy=float((re.findall(r"test accuracy ([\d.]+)", output) or ["0"])[-1]),
            resumed_from=[int(epoch) for epoch in re.findall(r"resumed from epoch (\d+)", output)],
            transcript=cluster.transcript(),
        )


def _reached(agent: Process, epoch: int) -> bool:
    return re.search(rf"epoch {epoch}/\d+ step", agent.output) is not None
