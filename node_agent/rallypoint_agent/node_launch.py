"""One agent with what it needs around it: what ``rallypoint run`` and ``elastic_launch`` have in common."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rallypoint.model import Endpoint, JobSpec, NodeSpec
from rallypoint.security.client import NO_SECURITY, ClientSecurity
from rallypoint.values import dataclass
from rallypoint_agent.meeting import Hosting

# Imported where they are needed: the rest can be had while other processes start.
if TYPE_CHECKING:
    from rallypoint.errors import Refusal
    from rallypoint_agent.api import RunResult, WorkerSpec
    from rallypoint_agent.embedded_coordinator import EmbeddedCoordinator
    from rallypoint_agent.health_check_server import HealthCheckServer
    from rallypoint_agent.keeper import Keeper
    from rallypoint_agent.link import LinkConfig
    from rallypoint_agent.local_elastic_agent import LocalElasticAgent
    from rallypoint_agent.logs import LogsSpecs
    from rallypoint_agent.obituary import Obituary


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLaunch:
    """What to run on this node, and as whose part.

    ``coordinators``: its endpoints; none means a coordinator of our own. ``hosting``: whether to start it at the first
    of them, if that is here. ``entrypoint_name`` is what people see.
    ``event_log_handler`` and ``metric_handler`` are names. ``signals`` end the agent; None means those of
    TORCHELASTIC_SIGNALS_TO_HANDLE. ``monitor_interval`` is in seconds.
    """

    coordinators: tuple[Endpoint, ...]
    job: str
    job_spec: JobSpec
    nproc_per_node: int
    role: str
    entrypoint: Callable[..., Any] | str
    args: tuple[Any, ...]
    entrypoint_name: str
    monitor_interval: float
    connect_timeout_ms: int
    event_log_handler: str
    metric_handler: str
    hosting: Hosting = Hosting.NEVER
    security: ClientSecurity = NO_SECURITY
    node_rank: int | None = None
    node_name: str | None = None
    local_addr: str | None = None
    master_addr: str | None = None
    master_port: int | None = None
    port_range: range | None = None
    duplicate_stdout_filters: tuple[str, ...] = ()
    duplicate_stderr_filters: tuple[str, ...] = ()
    log_line_prefix_template: str | None = None
    start_method: str = "spawn"
    signals: tuple[signal.Signals, ...] | None = None
    virtual_local_rank: bool = False
    numa_options: Any = None
    health_check_server: HealthCheckServer | None = None

    @property
    def node_spec(self) -> NodeSpec:
        return NodeSpec(
            local_world_size=self.nproc_per_node,
            role=self.role,
            node_rank=self.node_rank,
            hostname=socket.gethostname(),
            entrypoint=self.entrypoint_name,
        )


def refusals(launch: NodeLaunch) -> Iterator[Refusal]:
    """What the coordinator would refuse of it."""
    from rallypoint import validation

    yield from filter(
        None,
        (
            validation.check_job_name(launch.job),
            validation.check_job_spec(launch.job_spec),
            validation.check_node_spec(launch.node_spec),
            validation.check_node_name(launch.node_name) if launch.node_name else None,
            validation.check_host(launch.local_addr, "local_addr") if launch.local_addr else None,
            validation.check_host(launch.master_addr, "master_addr") if launch.master_addr else None,
        ),
    )


class NodeLauncher:
    """A context: what is around the agent is there while it is entered.

    That is the node's name, and a coordinator if the launch names none. A coordinator that is to be started for others
    as well, at the address that the launch names, stays. ``coordinator``: one that was started before, should the
    launch name none.
    """

    def __init__(self, launch: NodeLaunch, coordinator: EmbeddedCoordinator | None = None) -> None:
        self._launch = launch
        self._started = coordinator
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> NodeLauncher:
        from rallypoint_agent.node_name import claim_node_name

        with contextlib.ExitStack() as ending:
            self._coordinator = None
            if not self._launch.coordinators:
                from rallypoint_agent.embedded_coordinator import EmbeddedCoordinator

                own = self._started or EmbeddedCoordinator()
                self._coordinator = ending.enter_context(contextlib.closing(own))
            self._name = claim_node_name(self._launch.job, self._launch.node_name)
            ending.callback(self._name.close)
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @property
    def node(self) -> str:
        """This node's name."""
        return self._name.name

    def agent(self, logs_specs: LogsSpecs) -> LocalElasticAgent:
        """The agent, ready to ``run``; what an earlier one of this name left is cleared first.

        Raises LeftoversError, CoordinatorStartError, KeeperError, and ValueError for what cannot be done.
        """
        from rallypoint_agent.predecessor import record_of

        launch, coordinator, name = self._launch, self._coordinator, self._name
        kept = [coordinator.pid] if coordinator else []
        if launch.coordinators and launch.hosting is not Hosting.NEVER:
            from rallypoint_agent.hosted_coordinator import ensure_coordinator, hosts

            if hosts(launch.coordinators[0], launch.hosting):
                launch = _at_its_name(launch)
                if started := ensure_coordinator(launch.coordinators[0]):
                    kept.append(started.pid)
        self._clear_predecessor()
        hold_fds = () if name.fd is None else (name.fd,)
        keeper = self._start_keeper(hold_fds)
        if coordinator:
            _import_the_rest()
        endpoints = (coordinator.endpoint(),) if coordinator else launch.coordinators
        link_config = _link_config(launch, name.name, endpoints)
        incarnation = link_config.incarnation
        name.note(record_of(incarnation))
        return _agent(
            launch,
            link_config,
            logs_specs,
            note_obituary=lambda obituary: name.note(record_of(incarnation, obituary)),
            hold_fds=hold_fds,
            keep_children=tuple(kept),
            keeper=keeper,
        )

    def _start_keeper(self, hold_fds: tuple[int, ...]) -> Keeper:
        """It takes as long to start as we to import what the agent is made of, and begins to at once."""
        from rallypoint_agent.keeper import Keeper

        keeper = Keeper.start(hold_fds=hold_fds)
        self._ending.callback(keeper.close)
        return keeper

    def _clear_predecessor(self) -> None:
        from rallypoint_agent.predecessor import LeftoversError, clear_predecessor

        try:
            clear_predecessor(self._name.left)
        except LeftoversError:
            self._name.keep_record()
            raise

    def run(self, agent: LocalElasticAgent) -> RunResult:
        """Run it, and record its own end. Raises KeeperError and WatchdogError."""
        from rallypoint_agent.core.effects import FinishKind

        try:
            result = agent.run()
        finally:
            agent.record_own_end()
        if agent.finish and agent.finish.kind is FinishKind.UNKILLABLE:
            self._name.leave_to_keeper()
        return result


def _import_the_rest() -> None:
    """What the agent is made of, while its coordinator starts: that takes as long."""
    from rallypoint_agent.grpc_setup import prepare_environment

    prepare_environment()
    import rallypoint_agent.link.attacher
    import rallypoint_agent.local_elastic_agent  # noqa: F401


def _at_its_name(launch: NodeLaunch) -> NodeLaunch:
    """The launch on the coordinator's host: workers meet there under the name by which all nodes know the host.

    The address on the route to the coordinator, as elsewhere, would be a loopback one.
    """
    from rallypoint_agent.this_host import is_loopback_name

    host = launch.coordinators[0].host
    if launch.master_addr or launch.local_addr or is_loopback_name(host):
        return launch
    return replace(launch, master_addr=host)


@contextlib.contextmanager
def telemetry(launch: NodeLaunch) -> Iterator[None]:
    """Where events and metrics go. Their handlers have a thread: one that has to wait must not keep the agent."""
    from rallypoint_agent import events, metrics
    from rallypoint_agent.background import Background

    with contextlib.ExitStack() as ending:
        background = ending.enter_context(contextlib.closing(Background("telemetry")))
        if launch.event_log_handler != events.NULL:
            ending.enter_context(events.handled_in_background(launch.event_log_handler, background))
        if launch.metric_handler != "null":
            handler = metrics.metric_handler(launch.metric_handler)
            metrics.configure(metrics.MetricHandlerInBackground(handler, background))
            ending.callback(metrics.configure, metrics.NullMetricHandler())
        yield


def _link_config(launch: NodeLaunch, node: str, endpoints: tuple[Endpoint, ...]) -> LinkConfig:
    from rallypoint import __version__
    from rallypoint.model import Capability
    from rallypoint_agent.link import LinkConfig

    return LinkConfig(
        endpoints=endpoints,
        security=launch.security,
        job=launch.job,
        node=node,
        incarnation=os.urandom(16).hex(),
        job_spec=launch.job_spec,
        node_spec=launch.node_spec,
        agent_version=f"rallypoint-agent/{__version__}",
        capabilities=frozenset(Capability),
    )


def _agent(
    launch: NodeLaunch,
    link_config: LinkConfig,
    logs_specs: LogsSpecs,
    *,
    note_obituary: Callable[[Obituary], None],
    hold_fds: tuple[int, ...],
    keep_children: tuple[int, ...],
    keeper: Keeper,
) -> LocalElasticAgent:
    from rallypoint_agent.core.state import AgentConfig
    from rallypoint_agent.grpc_setup import target
    from rallypoint_agent.link.clock import boot_ms
    from rallypoint_agent.local_elastic_agent import LocalElasticAgent

    return LocalElasticAgent(
        _worker_spec(launch, link_config),
        logs_specs,
        launch.start_method,
        log_line_prefix_template=launch.log_line_prefix_template,
        shutdown_timeout=launch.job_spec.shutdown_timeout_ms / 1000,
        health_check_server=launch.health_check_server,
        config=AgentConfig(
            node=link_config.node,
            local_world_size=launch.nproc_per_node,
            job_spec=launch.job_spec,
            connect_timeout_ms=launch.connect_timeout_ms,
            start_ms=boot_ms(),
            coordinator=", ".join(map(target, link_config.endpoints)),
        ),
        port_range=launch.port_range,
        signals=launch.signals,
        run_id=launch.job,
        environ=_worker_environ(launch),
        # A coordinator of our own ends with us: there is nobody to tell.
        obituary=_obituary(link_config) if launch.coordinators else None,
        incarnation=link_config.incarnation,
        note_obituary=note_obituary,
        hold_fds=hold_fds,
        keep_children=keep_children,
        keeper=keeper,
    )


def _worker_environ(launch: NodeLaunch) -> dict[str, str]:
    """What workers inherit: an agent within a worker handles the signals that this one does, as in torch."""
    from rallypoint_agent.grpc_setup import scrubbed_environ
    from rallypoint_agent.signals import DEFAULT_SIGNALS, SIGNALS_VARIABLE

    environ = scrubbed_environ()
    if launch.signals is None:
        environ.setdefault(SIGNALS_VARIABLE, DEFAULT_SIGNALS)
    else:
        environ[SIGNALS_VARIABLE] = ",".join(number.name for number in launch.signals)
    return environ


def _worker_spec(launch: NodeLaunch, link_config: LinkConfig) -> WorkerSpec:
    from rallypoint_agent.api import WorkerSpec
    from rallypoint_agent.link import Link

    return WorkerSpec(
        role=launch.role,
        local_world_size=launch.nproc_per_node,
        rdzv_handler=Link(link_config),
        entrypoint=launch.entrypoint,
        args=launch.args,
        max_restarts=launch.job_spec.max_restarts,
        monitor_interval=launch.monitor_interval,
        event_log_handler=launch.event_log_handler,
        duplicate_stdout_filters=list(launch.duplicate_stdout_filters),
        duplicate_stderr_filters=list(launch.duplicate_stderr_filters),
        master_port=launch.master_port,
        master_addr=launch.master_addr,
        local_addr=launch.local_addr,
        virtual_local_rank=launch.virtual_local_rank,
        numa_options=launch.numa_options,
    )


def _obituary(link_config: LinkConfig) -> Obituary:
    from rallypoint_agent.obituary import Obituary

    return Obituary(
        endpoints=link_config.endpoints,
        job=link_config.job,
        job_uid="",
        lease_id=0,
        incarnation=link_config.incarnation,
        message="the agent was killed; its keeper ended the workers",
        ttl_ms=link_config.job_spec.lease_ttl_ms,
        use_proxy=link_config.use_proxy,
        security=link_config.security,
    )
