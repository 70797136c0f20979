"""An agent that launches its workers through a command prefix, ``ssh host`` for one.

    remote_agent.py COORDINATOR JOB NODE WORKERS 'ssh gpu-7' python train.py

It defines torch's four methods and nothing else; docs/extending.md says what it need not do.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

from rallypoint.model import Endpoint, JobSpec, NodeSpec, WorkerFailure
from rallypoint_agent import RunResult, SimpleElasticAgent, WorkerGroup, WorkerSpec, WorkerState
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.link import Link, LinkConfig
from rallypoint_agent.link.clock import boot_ms


class RemoteAgent(SimpleElasticAgent):
    """Each worker is the local process of its prefix, which is taken to end with what it runs."""

    def __init__(self, spec: WorkerSpec, prefix: list[str], config: AgentConfig) -> None:
        super().__init__(spec, config=config)
        self._prefix = prefix
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._processes = {}
        for worker in worker_group.workers:
            env = {
                "RANK": worker.global_rank,
                "LOCAL_RANK": worker.local_rank,
                "WORLD_SIZE": worker.world_size,
                "MASTER_ADDR": worker_group.master_addr,
                "MASTER_PORT": worker_group.master_port,
            }
            # A remote shell passes no environment on, and reads one line: so it is quoted.
            settings = [f"{name}={value}" for name, value in env.items()]
            line = shlex.join(["exec", "env", *settings, worker_group.spec.entrypoint, *worker_group.spec.args])
            self._processes[worker.local_rank] = subprocess.Popen([*self._prefix, line], start_new_session=True)
        return {rank: process.pid for rank, process in self._processes.items()}

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        codes = {rank: process.poll() for rank, process in self._processes.items()}
        failures = {
            worker.global_rank: self._failure(worker.local_rank, worker.global_rank, codes[worker.local_rank])
            for worker in worker_group.workers
            if codes[worker.local_rank]
        }
        if failures:
            return RunResult(WorkerState.FAILED, failures=failures)
        return RunResult(WorkerState.HEALTHY if None in codes.values() else WorkerState.SUCCEEDED)

    def _stop_workers(self, worker_group: WorkerGroup, is_restart: bool = False) -> None:
        self._shutdown(timeout=self._stop_grace)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: float = 30) -> None:
        for number, wait_s in ((death_sig, timeout), (signal.SIGKILL, None)):
            for process in self._processes.values():
                if process.poll() is None:
                    os.killpg(process.pid, number)
            until = None if wait_s is None else time.monotonic() + wait_s
            for process in self._processes.values():
                self._wait_for(process, until)

    def _wait_for(self, process: subprocess.Popen[bytes], until: float | None) -> None:
        """The lease is renewed meanwhile."""
        while process.poll() is None and (until is None or time.monotonic() < until):
            self._pump(0.1)

    def _failure(self, local_rank: int, rank: int, code: int | None) -> WorkerFailure:
        process = self._processes[local_rank]
        return WorkerFailure(
            node=self._core.config.node,
            local_rank=local_rank,
            rank=rank,
            pid=process.pid,
            exit_code=code or 0,
            message=f"{shlex.join(self._prefix)}: ended with {code}",
            fail_time_ms=time.time_ns() // 1_000_000,
            fail_clock_ms=boot_ms(),
        )


def main(coordinator: str, job: str, node: str, workers: str, prefix: str, program: str, *args: str) -> int:
    host, _, port = coordinator.rpartition(":")
    job_spec = JobSpec(max_nodes=1, max_restarts=1)
    link = Link(
        LinkConfig(
            endpoints=(Endpoint(host, int(port)),),
            job=job,
            node=node,
            incarnation=os.urandom(16).hex(),
            job_spec=job_spec,
            node_spec=NodeSpec(local_world_size=int(workers)),
            agent_version="remote-agent/1",
            # None is promised: the coordinator then waits out by the lease what this agent cannot know.
            capabilities=frozenset(),
        )
    )
    spec = WorkerSpec("default", int(workers), link, entrypoint=program, args=args)
    config = AgentConfig(
        node=node, local_world_size=int(workers), job_spec=job_spec, connect_timeout_ms=60_000, start_ms=boot_ms()
    )
    agent = RemoteAgent(spec, shlex.split(prefix), config)
    result = agent.run()
    print(agent.finish.message if agent.finish else "", file=sys.stderr)
    return 0 if result.state is WorkerState.SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
