"""The commands by which a round's workers are started."""

from __future__ import annotations

from collections.abc import Mapping

from rallypoint_agent.entrypoint import Entrypoint
from rallypoint_agent.keeper import WorkerCommand
from rallypoint_agent.logs import LogsDest


def worker_commands(
    entrypoint: Entrypoint, number: int, envs: Mapping[int, Mapping[str, str]], dest: LogsDest
) -> list[WorkerCommand]:
    """For round ``number``; ``envs`` by local rank."""
    return [
        WorkerCommand(
            local_rank=rank,
            argv=entrypoint.argv(number, rank),
            env=env,
            stdout=dest.stdouts.get(rank) or None,
            stderr=dest.stderrs.get(rank) or None,
        )
        for rank, env in envs.items()
    ]
