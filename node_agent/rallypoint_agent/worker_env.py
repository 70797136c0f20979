"""The command line and the environment of a worker, as torchrun's workers see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rallypoint.model import Assignment
from rallypoint.security.client import TOKEN_VARIABLE
from rallypoint.values import dataclass

INCARNATION_VARIABLE = "RALLYPOINT_INCARNATION"
"""By it a later agent knows the processes that this one left, should it and its keeper be killed at once."""

_LOCAL_RANK_MACRO = "${local_rank}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEnv:
    """What the environments of one node's workers have in common, whatever the round.

    ``base`` is the environment that they inherit. ``use_agent_store``: every rank is a client of the agent's store;
    else rank 0's worker hosts it.
    """

    base: Mapping[str, str]
    role: str
    local_world_size: int
    max_restarts: int
    run_id: str
    job_uid: str
    incarnation: str = ""
    virtual_local_rank: bool = False
    use_agent_store: bool = False


def worker_env(group: GroupEnv, assignment: Assignment, local_rank: int) -> dict[str, str]:
    """The environment of one worker, whole but for its error file. Every variable but RALLYPOINT_* is torchrun's.

    Raises ValueError if a virtual local rank has no device in CUDA_VISIBLE_DEVICES.
    """
    ranks = {
        "LOCAL_RANK": local_rank,
        "RANK": assignment.first_rank + local_rank,
        "GROUP_RANK": assignment.group_rank,
        "ROLE_RANK": assignment.first_role_rank + local_rank,
        "LOCAL_WORLD_SIZE": group.local_world_size,
        "WORLD_SIZE": assignment.world_size,
        "GROUP_WORLD_SIZE": assignment.group_world_size,
        "ROLE_WORLD_SIZE": assignment.role_world_size,
        "MASTER_PORT": assignment.endpoint.port,
        "TORCHELASTIC_RESTART_COUNT": assignment.restart_count,
        "TORCHELASTIC_MAX_RESTARTS": group.max_restarts,
        "RALLYPOINT_ROUND": assignment.round,
    }
    env = _inherited(group)
    env |= {name: str(value) for name, value in ranks.items()}
    env |= {
        "ROLE_NAME": group.role,
        "MASTER_ADDR": assignment.endpoint.host,
        "TORCHELASTIC_RUN_ID": group.run_id,
        "TORCHELASTIC_USE_AGENT_STORE": str(group.use_agent_store),
        # The logs' own: an inherited one is the agent's, not the worker's.
        "TORCHELASTIC_ERROR_FILE": "",
        "RALLYPOINT_JOB_UID": group.job_uid,
    }
    if group.incarnation:
        env[INCARNATION_VARIABLE] = group.incarnation
    if group.virtual_local_rank:
        env |= _virtual_rank(group.base, local_rank)
    return env


def worker_args(args: Iterable[object], local_rank: int) -> list[object]:
    """The arguments with every ``${local_rank}`` in a string replaced. All else, ``$$`` too, stays as it is."""
    return [arg.replace(_LOCAL_RANK_MACRO, str(local_rank)) if isinstance(arg, str) else arg for arg in args]


def sets_omp_num_threads(base: Mapping[str, str], local_world_size: int) -> bool:
    """Whether OMP_NUM_THREADS is set to 1: workers that share a node would oversubscribe it."""
    return local_world_size > 1 and "OMP_NUM_THREADS" not in base


def _inherited(group: GroupEnv) -> dict[str, str]:
    env = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", **group.base}
    if sets_omp_num_threads(group.base, group.local_world_size):
        env["OMP_NUM_THREADS"] = "1"
    # The agent's, not the worker's: whatever the script runs or prints would have it.
    env.pop(TOKEN_VARIABLE, None)
    return env


def _virtual_rank(base: Mapping[str, str], local_rank: int) -> dict[str, str]:
    """As --virtual-local-rank has it: each worker sees its own device only, as local rank 0."""
    visible = base.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return {"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": str(local_rank)}
    devices = visible.split(",")
    if local_rank >= len(devices):
        raise ValueError(f"local rank {local_rank} has no device of its own in CUDA_VISIBLE_DEVICES={visible}")
    return {"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": devices[local_rank].strip()}
