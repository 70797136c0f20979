"""torch's LaunchConfig: what to launch from Python, and what it means here."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rallypoint.durations import duration_ms
from rallypoint.errors import Refusal
from rallypoint.model import Endpoint, JobSpec
from rallypoint.security.client import FLAGS as SECURITY_FLAGS
from rallypoint.security.client import NO_SECURITY, ClientSecurity, CredentialsError, check, security_of
from rallypoint_agent import flag_values
from rallypoint_agent.entry_points import EntryPointError
from rallypoint_agent.events import get_logging_handler
from rallypoint_agent.field_types import check_types
from rallypoint_agent.health_check_server import HealthCheckServer
from rallypoint_agent.logs import LogsSpecs
from rallypoint_agent.node_launch import NodeLaunch, refusals
from rallypoint_agent.rdzv_conf import read_store_host
from rallypoint_agent.run_flags import CONNECT_TIMEOUT_MS, FLAGS, SHUTDOWN_TIMEOUT_VARIABLE
from rallypoint_agent.signals import DEFAULT_SIGNALS

_POLICIES = (
    *("lease_ttl", "coordinator_outage", "join_timeout", "last_call_timeout", "exit_barrier_timeout", "scale_up"),
    *("rejoin_wait", "no_restart_exit_codes"),
)
_OF_THE_NODE = ("node_name", "node_rank", "connect_timeout")
_STORE = "store"
_READERS: dict[str, Callable[[str], Any]] = {
    **{flag.dest: flag.read for flag in FLAGS if flag.dest in (*_POLICIES, *_OF_THE_NODE)},
    **{flag.field: str for flag in SECURITY_FLAGS},
    _STORE: read_store_host,
}
"""What ``rdzv_configs`` may hold: what flags of ``rallypoint run`` say, and who serves the workers' store."""

_TORCHS_KEYS = {"timeout": "join_timeout", "rank": "node_rank"}

_BACKENDS = ("rallypoint", "c10d")

_FIELDS = {"job": "run_id", "local_world_size": "nproc_per_node", "node": 'rdzv_configs["node_name"]'}
"""What the protocol's fields are called here, where they are called otherwise."""


@dataclass
class LaunchConfig:
    """What to launch on this node. The fields are torch's, times are in seconds.

    ``rdzv_endpoint``: the coordinator, as HOST:PORT; several are separated by commas. Without one the job is one
    node's, with a coordinator of its own. ``rdzv_backend``: "rallypoint" (default), or "c10d", which means the same;
    torch's other backends are refused. ``rdzv_configs``: policies, by their names as flags of ``rallypoint run`` with
    underscores, durations as there ("30s", or a number of seconds); also ``node_name``, ``node_rank``,
    ``connect_timeout``, ``store`` ("worker" or "agent" serves the workers' store) and ``token_file``, ``tls_ca``,
    ``tls_cert`` and ``tls_key``, which may also come from RALLYPOINT_TOKEN_FILE, RALLYPOINT_TLS_CA and so on.
    ``rdzv_timeout``, like the key "timeout", is ``join_timeout``. ``run_id`` is the job's name, which one node's job
    needs not. ``max_restarts`` are collective restarts of the whole job. ``signals_to_handle``: names, separated by
    commas. ``shutdown_timeout``:
    default TORCH_ELASTIC_SHUTDOWN_TIMEOUT, or 30.
    """

    min_nodes: int
    max_nodes: int
    nproc_per_node: int
    logs_specs: LogsSpecs | None = None
    run_id: str = ""
    role: str = "default_role"
    rdzv_endpoint: str = ""
    rdzv_backend: str = "rallypoint"
    rdzv_configs: dict[str, Any] = field(default_factory=dict)
    rdzv_timeout: float = -1
    max_restarts: int = 3
    monitor_interval: float = 0.1
    start_method: str = "spawn"
    log_line_prefix_template: str | None = None
    metrics_cfg: dict[str, str] = field(default_factory=dict)
    local_addr: str | None = None
    event_log_handler: str = "null"
    numa_options: Any = None
    signals_to_handle: str = DEFAULT_SIGNALS
    duplicate_stdout_filters: list[str] | None = None
    duplicate_stderr_filters: list[str] | None = None
    virtual_local_rank: bool = False
    shutdown_timeout: float | None = None


def entrypoint_name(entrypoint: Callable[..., Any] | str, args: tuple[Any, ...]) -> str:
    """What people know it by: the function's name, the program, or the script of this interpreter."""
    if not isinstance(entrypoint, str):
        return getattr(entrypoint, "__name__", repr(entrypoint))
    if entrypoint == sys.executable:
        return next((arg for arg in map(str, args) if not arg.startswith("-")), entrypoint)
    return entrypoint


def node_launch(
    config: LaunchConfig,
    entrypoint: Callable[..., Any] | str,
    args: tuple[Any, ...],
    health_check_server: HealthCheckServer | None = None,
    environ: Mapping[str, str] = os.environ,
) -> NodeLaunch:
    """What the config means. Raises ValueError, by the field's name, for what makes no sense or cannot be had."""
    check_types(config)
    values = _rdzv_configs(config)
    coordinators = _coordinators(config)
    launch = NodeLaunch(
        coordinators=coordinators,
        security=_security(values, coordinators, environ),
        job=config.run_id or os.urandom(8).hex(),
        job_spec=_job_spec(config, values, environ),
        nproc_per_node=config.nproc_per_node,
        role=config.role,
        entrypoint=entrypoint,
        args=tuple(args),
        entrypoint_name=os.path.basename(entrypoint_name(entrypoint, args)),
        monitor_interval=config.monitor_interval,
        connect_timeout_ms=values.get("connect_timeout", CONNECT_TIMEOUT_MS),
        event_log_handler=config.event_log_handler,
        metric_handler="null",
        node_rank=values.get("node_rank"),
        node_name=values.get("node_name"),
        local_addr=config.local_addr,
        duplicate_stdout_filters=tuple(config.duplicate_stdout_filters or ()),
        duplicate_stderr_filters=tuple(config.duplicate_stderr_filters or ()),
        log_line_prefix_template=config.log_line_prefix_template,
        start_method=config.start_method,
        signals=_signals(config.signals_to_handle),
        virtual_local_rank=config.virtual_local_rank,
        numa_options=config.numa_options,
        health_check_server=health_check_server,
    )
    _check(config, launch)
    return launch


def _check(config: LaunchConfig, launch: NodeLaunch) -> None:
    if config.metrics_cfg:
        raise ValueError("metrics_cfg has no effect in torch and none here: use rallypoint_agent.metrics.configure")
    for refusal in refusals(launch):
        raise ValueError(_in_our_words(refusal))
    try:
        get_logging_handler(config.event_log_handler)
    except EntryPointError as error:
        raise ValueError(f"event_log_handler {config.event_log_handler}: {error}") from None


def _in_our_words(refusal: Refusal) -> str:
    name = refusal.field.rpartition(".")[2]
    key = name.removesuffix("_delay")
    ours = f'rdzv_configs["{key}"]' if key in _READERS else _FIELDS.get(name, name)
    return refusal.message.replace(refusal.field, ours, 1)


def _coordinators(config: LaunchConfig) -> tuple[Endpoint, ...]:
    if config.rdzv_backend not in _BACKENDS:
        backend = f"rdzv_backend {config.rdzv_backend!r}"
        raise ValueError(f"{backend} is not supported: leave it out, and let rdzv_endpoint name a coordinator")
    if config.rdzv_endpoint:
        try:
            endpoints = flag_values.endpoints(config.rdzv_endpoint)
        except ValueError as error:
            raise ValueError(f"rdzv_endpoint {config.rdzv_endpoint}: {error}") from None
        if config.max_nodes > 1 and not config.run_id:
            raise ValueError("several nodes need the job's name: set run_id")
        return endpoints
    if config.max_nodes > 1:
        raise ValueError("several nodes need a coordinator: set rdzv_endpoint to its HOST:PORT")
    return ()


def _security(
    values: Mapping[str, Any], coordinators: tuple[Endpoint, ...], environ: Mapping[str, str]
) -> ClientSecurity:
    if not coordinators:
        return NO_SECURITY
    security = security_of(values, environ)
    try:
        check(security, (host for host, _ in coordinators))
    except CredentialsError as error:
        raise ValueError(str(error)) from None
    return security


def _rdzv_configs(config: LaunchConfig) -> dict[str, Any]:
    """The values, read as flags are."""
    given = {_TORCHS_KEYS.get(key, key): value for key, value in config.rdzv_configs.items()}
    if config.rdzv_timeout != -1:
        given.setdefault("join_timeout", config.rdzv_timeout)
    if unknown := sorted(given.keys() - _READERS.keys()):
        raise ValueError(f"rdzv_configs: {unknown[0]!r} is not known; there are {', '.join(sorted(_READERS))}")
    values = {}
    for key, value in given.items():
        try:
            values[key] = _READERS[key](str(value))
        except ValueError as error:
            raise ValueError(f'rdzv_configs["{key}"]={value}: {error}') from None
    return values


def _job_spec(config: LaunchConfig, values: Mapping[str, Any], environ: Mapping[str, str]) -> JobSpec:
    policies = {key: values[key] for key in _POLICIES if key in values}
    more: dict[str, Any] = {}
    if "scale_up" in policies:
        more["scale_up"], more["scale_up_delay_ms"] = policies.pop("scale_up")
    if "no_restart_exit_codes" in policies:
        more["no_restart_exit_codes"] = policies.pop("no_restart_exit_codes")
    if _STORE in values:
        more["store_host"] = values[_STORE]
    return JobSpec(
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        max_restarts=config.max_restarts,
        shutdown_timeout_ms=_shutdown_timeout_ms(config, environ),
        **{f"{name}_ms": value for name, value in policies.items()},
        **more,
    )


def _shutdown_timeout_ms(config: LaunchConfig, environ: Mapping[str, str]) -> int:
    if config.shutdown_timeout is not None:
        source, given = "shutdown_timeout", str(config.shutdown_timeout)
    else:
        source, given = SHUTDOWN_TIMEOUT_VARIABLE, environ.get(SHUTDOWN_TIMEOUT_VARIABLE) or "30"
    try:
        return duration_ms(given)
    except ValueError as error:
        raise ValueError(f"{source} {given}: {error}") from None


def _signals(names: str) -> tuple[signal.Signals, ...]:
    given = list(filter(None, (name.strip() for name in names.split(","))))
    if unknown := [name for name in given if name not in signal.Signals.__members__]:
        raise ValueError(f"signals_to_handle: {unknown[0]} is no signal here")
    try:
        flag_values.signal_names(names)
    except ValueError as error:
        raise ValueError(f"signals_to_handle: {error}") from None
    return tuple(signal.Signals[name] for name in given)
