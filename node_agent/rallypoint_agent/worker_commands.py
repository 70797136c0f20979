"""The commands by which a round's workers are started."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rallypoint_agent.entrypoint import Entrypoint
from rallypoint_agent.keeper import WorkerCommand
from rallypoint_agent.logs import LogsDest


def worker_commands(
    entrypoint: Entrypoint,
    number: int,
    envs: Mapping[int, Mapping[str, str]],
    dest: LogsDest,
    cpus: Mapping[int, Collection[int]],
) -> list[WorkerCommand]:
    """For round ``number``; ``envs`` by local rank, as are ``cpus``, of those workers that are bound to some."""
    return [
        WorkerCommand(
            local_rank=rank,
            argv=entrypoint.argv(number, rank),
            env=env,
            stdout=dest.stdouts.get(rank) or None,
            stderr=dest.stderrs.get(rank) or None,
            cpus=tuple(sorted(cpus[rank])) if rank in cpus else None,
        )
        for rank, env in envs.items()
    ]
