"""Workers that do not start, and workers that do not end, not even by SIGKILL: what is reported and said of them."""

from __future__ import annotations

from rallypoint.model import Drain, Exit, WorkerFailure, WorkerState
from rallypoint_agent.core.state import AgentConfig, AgentState

CANNOT_START = 127
"""The exit code of a worker that never ran, as a shell has it."""


def start_timeout_ms(config: AgentConfig) -> int:
    """Half of what the coordinator gives the node: who gives up by himself can say why."""
    return config.job_spec.start_timeout_ms // 2


def never_started(state: AgentState, config: AgentConfig, now_ms: int) -> WorkerFailure:
    """Workers that cannot be brought to run are a failure of this node's own: of the first of them."""
    late = next((worker for worker in state.workers.values() if worker.state is WorkerState.INIT), state.workers[0])
    return WorkerFailure(
        node=config.node,
        local_rank=late.local_rank,
        rank=late.rank,
        pid=late.pid,
        exit_code=CANNOT_START,
        message=f"the workers of round {state.round} did not start within {start_timeout_ms(config) / 1000:g} s",
        fail_clock_ms=now_ms,
    )


def still_there(pids: tuple[int, ...]) -> str:
    """A clause that names them."""
    names = ", ".join(map(str, pids))
    return f"not even SIGKILL ends process{'es' if len(pids) > 1 else ''} {names} of the workers"


def why_to_end(state: AgentState) -> str | None:
    """Why the agent is to end once its workers are gone; None if it is not to."""
    if state.ending is not None:
        return state.ending.message
    deferred = state.deferred
    if deferred is None:
        return None
    match deferred.action:
        case Exit(outcome):
            return outcome.message
        case Drain():
            return deferred.message
        case _:
            return None
