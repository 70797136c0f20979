// What a worker finds in its environment: torchrun's variables, and two that tell one round of one life from any other.
"use strict";

// What an agent ends on. A launcher within a worker is to do the same, so the workers are told.
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"];

function workerEnvironment({ inherited, assignment, jobSpec, job, jobUid, role }) {
  const { RALLYPOINT_TOKEN, ...rest } = inherited; // The token is the agent's alone.
  return {
    ...rest,
    RANK: assignment.first_rank,
    LOCAL_RANK: 0,
    WORLD_SIZE: assignment.world_size,
    LOCAL_WORLD_SIZE: 1,
    GROUP_RANK: assignment.group_rank,
    GROUP_WORLD_SIZE: assignment.group_world_size,
    ROLE_NAME: role || "default",
    ROLE_RANK: assignment.first_role_rank,
    ROLE_WORLD_SIZE: assignment.role_world_size,
    MASTER_ADDR: assignment.endpoint.host,
    MASTER_PORT: assignment.endpoint.port,
    TORCHELASTIC_RUN_ID: job,
    TORCHELASTIC_RESTART_COUNT: assignment.restart_count,
    TORCHELASTIC_MAX_RESTARTS: jobSpec.max_restarts,
    TORCHELASTIC_USE_AGENT_STORE: "False", // The worker of rank 0 serves the store.
    TORCH_NCCL_ASYNC_ERROR_HANDLING: inherited.TORCH_NCCL_ASYNC_ERROR_HANDLING ?? "1",
    TORCHELASTIC_SIGNALS_TO_HANDLE: SIGNALS.join(),
    RALLYPOINT_JOB_UID: jobUid,
    RALLYPOINT_ROUND: assignment.round,
  };
}

module.exports = { SIGNALS, workerEnvironment };
