"""Hypothesis strategies for every value of the model, within the bounds of the wire."""

from __future__ import annotations

from hypothesis import strategies as st

from rallypoint.model import (
    AgentPhase,
    Assignment,
    Blame,
    Capability,
    Directive,
    Drain,
    Endpoint,
    EndpointOffer,
    Exit,
    Hello,
    Hold,
    JobSpec,
    JobState,
    Keep,
    NodeSpec,
    Observed,
    Outcome,
    Run,
    ScaleUp,
    Stop,
    StoreHost,
    Version,
    WatchdogStatus,
    Welcome,
    WorkerFailure,
    WorkerState,
    WorkerStatus,
)

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
YEAR_9999_MS = 253_402_300_799_999

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, INT32_MAX)
ids = st.integers(0, INT64_MAX)
rounds = st.integers(-1, INT64_MAX)
exit_codes = st.integers(-INT32_MAX, INT32_MAX)
durations_ms = st.integers(0, 10**12)
instants_ms = st.integers(0, YEAR_9999_MS)

versions = st.builds(Version, ids, ids)
endpoints = st.builds(Endpoint, texts, st.integers(1, 65535))
offers = st.builds(EndpointOffer, ids, endpoints)
capabilities = st.frozensets(st.sampled_from(Capability))
outcome_states = st.sampled_from([JobState.SUCCEEDED, JobState.FAILED])

job_specs = st.builds(
    JobSpec,
    min_nodes=counts,
    max_nodes=counts,
    max_restarts=counts,
    lease_ttl_ms=durations_ms,
    fence_grace_ms=durations_ms,
    coordinator_outage_ms=durations_ms,
    join_timeout_ms=durations_ms,
    last_call_timeout_ms=durations_ms,
    shutdown_timeout_ms=durations_ms,
    exit_barrier_timeout_ms=durations_ms,
    scale_up=st.sampled_from(ScaleUp),
    scale_up_delay_ms=durations_ms,
    rejoin_wait_ms=durations_ms,
    no_restart_exit_codes=st.sets(st.integers(1, 255), max_size=3).map(lambda codes: tuple(sorted(codes))),
    store_host=st.sampled_from(StoreHost),
)
node_specs = st.builds(
    NodeSpec,
    local_world_size=counts,
    role=texts.filter(bool),
    node_rank=st.none() | exit_codes,
    labels=st.dictionaries(texts, texts, max_size=3),
    hostname=texts,
    entrypoint=texts,
)
failures = st.builds(
    WorkerFailure,
    node=texts,
    local_rank=counts,
    rank=counts,
    pid=ids,
    exit_code=exit_codes,
    message=texts,
    traceback=texts,
    fail_time_ms=instants_ms,
    after_stop=st.booleans(),
    fail_clock_ms=st.none() | durations_ms,
    corrected_time_ms=instants_ms,
    time_error_ms=st.none() | durations_ms,
    blame=st.none() | st.sampled_from(Blame),
)
worker_statuses = st.builds(
    WorkerStatus,
    local_rank=counts,
    rank=counts,
    pid=ids,
    state=st.sampled_from(WorkerState),
    exit_code=st.none() | exit_codes,
)
watchdogs = st.builds(
    WatchdogStatus,
    enabled=st.booleans(),
    progress_time_ms=instants_ms,
    live_timers=counts,
    last_expiry=texts,
)
assignments = st.builds(
    Assignment,
    round=ids,
    restart_count=counts,
    group_rank=counts,
    group_world_size=counts,
    first_rank=counts,
    world_size=counts,
    first_role_rank=counts,
    role_world_size=counts,
    endpoint=endpoints,
    offer_id=ids,
)
outcomes = st.builds(
    Outcome,
    state=outcome_states,
    reason=texts,
    message=texts,
    culprit=st.none() | failures,
    candidates=st.lists(failures, max_size=2).map(tuple),
)
observations = st.builds(
    Observed,
    version=versions,
    phase=st.sampled_from(AgentPhase),
    round=rounds,
    workers=st.lists(worker_statuses, max_size=3).map(tuple),
    failures=st.lists(failures, max_size=2).map(tuple),
    offer=st.none() | offers,
    watchdog=watchdogs,
    observe_time_ms=instants_ms,
    unsupported_version=versions,
    fenced=st.booleans(),
    unkillable_pids=st.lists(ids, max_size=3).map(tuple),
    assignment=st.none() | assignments,
)
hellos = st.builds(
    Hello,
    job=texts,
    node=texts,
    incarnation=texts,
    attach_seq=ids,
    job_spec=job_specs,
    node_spec=node_specs,
    observed=observations,
    protocol_version=counts,
    capabilities=capabilities,
    agent_version=texts,
    cluster_id=texts,
    job_uid=texts,
    lease_id=ids,
    highest_version=versions,
)
actions = (
    st.none()
    | st.just(Hold())
    | st.just(Keep())
    | st.builds(Run, assignments)
    | st.builds(Stop, ids, durations_ms)
    | st.builds(Drain, durations_ms)
    | st.builds(Exit, outcomes)
)
directives = st.builds(
    Directive,
    version=versions,
    job_uid=texts,
    reason=texts,
    message=texts,
    action=actions,
    consumed_offer_id=ids,
)
welcomes = st.builds(
    Welcome,
    cluster_id=texts,
    job_uid=texts,
    lease_id=ids,
    lease_ttl_ms=durations_ms,
    heartbeat_interval_ms=durations_ms,
    job_spec=job_specs,
    directive=directives,
    coordinator_version=texts,
    takes_over_cluster_id=texts,
)
