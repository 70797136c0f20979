"""``rallypoint run``: one agent, from its command line to its exit status."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import TYPE_CHECKING

from rallypoint_agent.options import RunOptions, UsageError, parse

# Imported where they are needed: a command line that makes no sense should not wait for them, and
# the rest can be had while other processes start.
if TYPE_CHECKING:
    from rallypoint.errors import Refusal
    from rallypoint.model import Endpoint, NodeSpec
    from rallypoint_agent.api import WorkerSpec
    from rallypoint_agent.link import LinkConfig
    from rallypoint_agent.local_elastic_agent import LocalElasticAgent
    from rallypoint_agent.logs import LogsSpecs
    from rallypoint_agent.obituary import Obituary

FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130

PREFIX_TEMPLATE_VARIABLE = "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"
RUN_PATH = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
"""Where whoever started the agent looks for the reason of its failure, as a worker's agent does."""

logger = logging.getLogger(__name__)


def command(argv: list[str]) -> int:
    """Run the agent. Returns the exit status that says how it went."""
    try:
        return _command(argv)
    except KeyboardInterrupt:
        return INTERRUPTED  # Before there was anything to end.


def _command(argv: list[str]) -> int:
    try:
        options = parse(argv)
        logs_specs = _checked(options)
    except UsageError as error:
        _complain(str(error))
        return USAGE
    except SystemExit:
        return 0  # The help was asked for.
    if options.ignored_conf:
        _complain(f"--rdzv-conf: no effect here: {', '.join(options.ignored_conf)}")
    return _run(options, logs_specs)


def _checked(options: RunOptions) -> LogsSpecs:
    """Refuse what the coordinator would refuse, a log folder that cannot be written to, and what cannot be loaded."""
    from rallypoint_agent.entry_points import EntryPointError
    from rallypoint_agent.flag_names import flag_of
    from rallypoint_agent.logs import load_logs_specs

    for refusal in filter(None, _refusals(options)):
        raise UsageError(refusal.message.replace(refusal.field, flag_of(refusal.field), 1))
    _check_handlers(options)
    streams = options.redirects, options.tee
    try:
        return load_logs_specs(options.logs_specs, options.log_dir, *streams, set(options.local_ranks_filter) or None)
    except EntryPointError as error:
        raise UsageError(f"--logs-specs {options.logs_specs}: {error}") from None
    except OSError as error:
        raise UsageError(f"--log-dir {options.log_dir}: {error.strerror}") from None


def _check_handlers(options: RunOptions) -> None:
    from rallypoint_agent.entry_points import EntryPointError
    from rallypoint_agent.events import get_logging_handler
    from rallypoint_agent.metrics import metric_handler

    for flag, name, load in (
        ("--event-log-handler", options.event_log_handler, get_logging_handler),
        ("--metric-handler", options.metric_handler, metric_handler),
    ):
        try:
            load(name)
        except EntryPointError as error:
            raise UsageError(f"{flag} {name}: {error}") from None


def _refusals(options: RunOptions) -> Iterator[Refusal | None]:
    from rallypoint import validation

    yield validation.check_job_name(options.job)
    yield validation.check_job_spec(options.job_spec)
    yield validation.check_node_spec(_node_spec(options))
    if options.node_name:
        yield validation.check_node_name(options.node_name)
    if options.local_addr:
        yield validation.check_host(options.local_addr, "local_addr")
    if options.master_addr:
        yield validation.check_host(options.master_addr, "master_addr")


def _run(options: RunOptions, logs_specs: LogsSpecs) -> int:
    from rallypoint_agent.core.effects import FinishKind
    from rallypoint_agent.embedded_coordinator import CoordinatorStartError, EmbeddedCoordinator
    from rallypoint_agent.file_timer import FILE_VARIABLE, WatchdogError
    from rallypoint_agent.keeper import KeeperError
    from rallypoint_agent.node_name import claim_node_name
    from rallypoint_agent.predecessor import LeftoversError, clear_predecessor, record_of
    from rallypoint_agent.signals import SIGNALS_VARIABLE, LastSignals

    if options.signals_to_handle is not None:
        os.environ[SIGNALS_VARIABLE] = options.signals_to_handle  # For the workers too, as torchrun does.
    with contextlib.ExitStack() as ending:
        last_signals = ending.enter_context(LastSignals())
        coordinator = None
        if not options.coordinators:
            coordinator = ending.enter_context(contextlib.closing(EmbeddedCoordinator()))
        name = claim_node_name(options.job, options.node_name)
        ending.callback(name.close)
        ending.enter_context(_logging_to_stderr(name.name))
        ending.enter_context(_telemetry(options))
        try:
            clear_predecessor(name.left)
            endpoints = (coordinator.endpoint(),) if coordinator else options.coordinators
            link_config = _link_config(options, name.name, endpoints)
            incarnation = link_config.incarnation
            name.note(record_of(incarnation))
            agent = _agent(
                options,
                link_config,
                logs_specs,
                note_obituary=lambda obituary: name.note(record_of(incarnation, obituary)),
                hold_fds=() if name.fd is None else (name.fd,),
                keep_children=(coordinator.pid,) if coordinator else (),
            )
            last_signals.guard(agent.signals, lambda: _status(agent))
            try:
                agent.run()
            finally:
                agent.record_own_end()
            if agent.finish and agent.finish.kind is FinishKind.UNKILLABLE:
                name.leave_to_keeper()
        except LeftoversError as error:
            logger.error("no worker may be started here: %s", error)
            name.keep_record()
            return FAILED
        except CoordinatorStartError as error:
            logger.error("the coordinator of this job's own did not start: %s", error)
            return UNREACHABLE
        except KeeperError as error:
            logger.error("no worker can be kept here: %s", error)
            return FAILED
        except WatchdogError as error:
            logger.error("there can be no watchdog (%s): %s", FILE_VARIABLE, error)
            return FAILED
        return _report(options, agent)


def _link_config(options: RunOptions, node: str, endpoints: tuple[Endpoint, ...]) -> LinkConfig:
    from rallypoint import __version__
    from rallypoint.model import Capability
    from rallypoint_agent.link import LinkConfig

    return LinkConfig(
        endpoints=endpoints,
        job=options.job,
        node=node,
        incarnation=os.urandom(16).hex(),
        job_spec=options.job_spec,
        node_spec=_node_spec(options),
        agent_version=f"rallypoint-agent/{__version__}",
        capabilities=frozenset(Capability),
    )


def _node_spec(options: RunOptions) -> NodeSpec:
    from rallypoint.model import NodeSpec

    return NodeSpec(
        local_world_size=options.nproc_per_node,
        role=options.role,
        node_rank=options.node_rank,
        hostname=socket.gethostname(),
        entrypoint=os.path.basename(options.script),
    )


def _agent(
    options: RunOptions,
    link_config: LinkConfig,
    logs_specs: LogsSpecs,
    *,
    note_obituary: Callable[[Obituary], None],
    hold_fds: tuple[int, ...],
    keep_children: tuple[int, ...],
) -> LocalElasticAgent:
    from rallypoint_agent.core.state import AgentConfig
    from rallypoint_agent.grpc_setup import target
    from rallypoint_agent.link.clock import boot_ms
    from rallypoint_agent.local_elastic_agent import LocalElasticAgent

    return LocalElasticAgent(
        _worker_spec(options, link_config),
        logs_specs,
        log_line_prefix_template=os.environ.get(PREFIX_TEMPLATE_VARIABLE),
        shutdown_timeout=options.job_spec.shutdown_timeout_ms / 1000,
        config=AgentConfig(
            node=link_config.node,
            local_world_size=options.nproc_per_node,
            job_spec=options.job_spec,
            connect_timeout_ms=options.connect_timeout_ms,
            start_ms=boot_ms(),
            coordinator=", ".join(map(target, link_config.endpoints)),
        ),
        port_range=options.port_range,
        run_id=options.job,
        # A coordinator of our own ends with us: there is nobody to tell.
        obituary=_obituary(link_config) if options.coordinators else None,
        incarnation=link_config.incarnation,
        note_obituary=note_obituary,
        hold_fds=hold_fds,
        keep_children=keep_children,
    )


def _worker_spec(options: RunOptions, link_config: LinkConfig) -> WorkerSpec:
    from rallypoint_agent.api import WorkerSpec
    from rallypoint_agent.link import Link

    program, args = _worker_command(options)
    return WorkerSpec(
        role=options.role,
        local_world_size=options.nproc_per_node,
        rdzv_handler=Link(link_config),
        entrypoint=program,
        args=args,
        max_restarts=options.job_spec.max_restarts,
        monitor_interval=options.monitor_interval,
        event_log_handler=options.event_log_handler,
        duplicate_stdout_filters=list(options.duplicate_stdout_filters),
        duplicate_stderr_filters=list(options.duplicate_stderr_filters),
        master_port=options.master_port,
        master_addr=options.master_addr,
        local_addr=options.local_addr,
        virtual_local_rank=options.virtual_local_rank,
    )


def _obituary(link_config: LinkConfig) -> Obituary:
    from rallypoint.model import NO_ROUND
    from rallypoint_agent.obituary import Obituary

    return Obituary(
        endpoints=link_config.endpoints,
        job=link_config.job,
        job_uid="",
        lease_id=0,
        round=NO_ROUND,
        incarnation=link_config.incarnation,
        message="the agent was killed; its keeper ended the workers",
        ttl_ms=link_config.job_spec.lease_ttl_ms,
        use_proxy=link_config.use_proxy,
    )


def _worker_command(options: RunOptions) -> tuple[str, tuple[str, ...]]:
    """torchrun's: the interpreter, unbuffered, and the script; or the program itself."""
    if options.no_python:
        return options.script, options.script_args
    way = ("-m",) if options.module else ("-c", RUN_PATH) if options.run_path else ()
    return options.python or sys.executable, ("-u", *way, options.script, *options.script_args)


def _status(agent: LocalElasticAgent) -> int | None:
    """The exit status; None while it is not decided."""
    from rallypoint_agent.errors import exit_status

    return exit_status(agent.finish) if agent.finish else None


def _report(options: RunOptions, agent: LocalElasticAgent) -> int:
    from rallypoint_agent.core.effects import FinishKind
    from rallypoint_agent.errors import exit_status
    from rallypoint_agent.final_report import final_report, leave_error_file

    finish = agent.finish
    assert finish is not None
    status = exit_status(finish)
    report = final_report(finish, agent.failures, agent.log_dir) if status else ""
    if status and (path := os.environ.get(ERROR_FILE_VARIABLE)):
        leave_error_file(path, finish, agent.failures)
    smooth = status == 0 and finish.kind is not FinishKind.BARRIER_TIMEOUT
    level = logging.INFO if smooth else logging.ERROR
    logger.log(level, "job %s: %s%s", options.job, finish.message, report and f"\n{report}")
    return status


@contextlib.contextmanager
def _logging_to_stderr(node: str) -> Iterator[None]:
    """Our lines behind this node's name; of others' only what is wrong.

    They are written by a thread: a terminal that is held, or a reader that sleeps, must not keep
    the agent from renewing its lease. At the end they are waited for.
    """
    level = logging.getLevelNamesMapping().get(os.environ.get("LOGLEVEL", "").upper(), logging.INFO)
    writer = logging.StreamHandler()
    writer.setFormatter(logging.Formatter(f"rallypoint[{node}]: %(message)s"))
    lines: SimpleQueue[logging.LogRecord] = SimpleQueue()
    listener = QueueListener(lines, writer)
    root = logging.getLogger()
    root.addHandler(QueueHandler(lines))
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("rallypoint_agent").setLevel(level)
    listener.start()
    try:
        yield
    finally:
        listener.stop()


@contextlib.contextmanager
def _telemetry(options: RunOptions) -> Iterator[None]:
    """Where events and metrics go. Their handlers have a thread, for the same reason as our lines."""
    from rallypoint_agent import events, metrics
    from rallypoint_agent.background import Background

    with contextlib.ExitStack() as ending:
        background = ending.enter_context(contextlib.closing(Background("telemetry")))
        if options.event_log_handler != events.NULL:
            ending.enter_context(events.handled_in_background(options.event_log_handler, background))
        if options.metric_handler != "null":
            handler = metrics.metric_handler(options.metric_handler)
            metrics.configure(metrics.MetricHandlerInBackground(handler, background))
            ending.callback(metrics.configure, metrics.NullMetricHandler())
        yield


def _complain(message: str) -> None:
    print(f"rallypoint run: {message}", file=sys.stderr)
