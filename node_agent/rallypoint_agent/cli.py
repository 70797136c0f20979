"""``rallypoint run``: one agent, from its command line to its exit status."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rallypoint.lean_asyncio import import_asyncio
from rallypoint_agent.background import Background, HandlerInBackground
from rallypoint_agent.options import RunOptions, UsageError, parse

# Imported where they are needed: a command line that makes no sense should not wait for them, and
# the rest can be had while other processes start.
if TYPE_CHECKING:
    from rallypoint_agent.embedded_coordinator import EmbeddedCoordinator
    from rallypoint_agent.local_elastic_agent import LocalElasticAgent
    from rallypoint_agent.logs import LogsSpecs
    from rallypoint_agent.node_launch import NodeLaunch
    from rallypoint_agent.numa import AffinityMode, NumaOptions

FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130

PREFIX_TEMPLATE_VARIABLE = "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"
RUN_PATH = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
"""Where whoever started the agent looks for the reason of its failure, as a worker's agent does."""

logger = logging.getLogger(__name__)


def command(argv: list[str], coordinator: EmbeddedCoordinator | None = None) -> int:
    """Run the agent. Returns the exit status that says how it went.

    ``coordinator``: one that was started for it, since its flags ask for that; else they are what decides.
    """
    try:
        return _command(argv, coordinator)
    except KeyboardInterrupt:
        return INTERRUPTED  # Before there was anything to end.


def _command(argv: list[str], coordinator: EmbeddedCoordinator | None) -> int:
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
    if options.ignored_flags:
        _complain(f"no effect with this --rdzv-endpoint, as with torchrun: {', '.join(options.ignored_flags)}")
    return _run(options, logs_specs, coordinator)


def _checked(options: RunOptions) -> LogsSpecs:
    """Refuse what the coordinator would refuse, a log folder that cannot be written to, and what cannot be loaded."""
    from rallypoint_agent.entry_points import EntryPointError
    from rallypoint_agent.flag_names import flag_of
    from rallypoint_agent.logs import load_logs_specs
    from rallypoint_agent.node_launch import refusals

    for refusal in refusals(_launch(options)):
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


def _run(options: RunOptions, logs_specs: LogsSpecs, coordinator: EmbeddedCoordinator | None) -> int:
    from rallypoint_agent.node_launch import NodeLauncher, telemetry
    from rallypoint_agent.signals import SIGNALS_VARIABLE, LastSignals

    if options.signals_to_handle is not None:
        os.environ[SIGNALS_VARIABLE] = options.signals_to_handle  # For the workers too, as torchrun does.
    launch = _launch(options)
    with contextlib.ExitStack() as ending:
        last_signals = ending.enter_context(LastSignals())
        launcher = ending.enter_context(NodeLauncher(launch, coordinator))
        if not _plugs_in(options):
            import_asyncio()
        ending.enter_context(_logging_to_stderr(launcher.node))
        ending.enter_context(telemetry(launch))
        try:
            agent = launcher.agent(logs_specs)
            last_signals.guard(agent.signals, lambda: _status(agent))
            gc.freeze()
            gc.enable()
            launcher.run(agent)
        except Exception as error:
            return _not_run(error)
        return _report(options, agent)


def _plugs_in(options: RunOptions) -> bool:
    """Whether something of others runs in this process: it may want asyncio's TLS."""
    handlers = {options.event_log_handler, options.metric_handler} - {"null", "console"}
    return bool(handlers) or options.logs_specs not in (None, "default")


def _not_run(error: Exception) -> int:
    """The exit status of what keeps the agent from its workers. Anything else is raised again."""
    from rallypoint_agent.coordinator_process import CoordinatorStartError
    from rallypoint_agent.file_timer import FILE_VARIABLE, WatchdogError
    from rallypoint_agent.keeper import KeeperError
    from rallypoint_agent.numa import NumaBindingError
    from rallypoint_agent.predecessor import LeftoversError

    match error:
        case LeftoversError():
            logger.error("no worker may be started here: %s", error)
        case CoordinatorStartError():
            logger.error("%s", error)
            return UNREACHABLE
        case KeeperError():
            logger.error("no worker can be kept here: %s", error)
        case NumaBindingError():
            logger.error("the workers cannot be bound to CPUs (--numa-binding): %s", error)
        case WatchdogError():
            logger.error("there can be no watchdog (%s): %s", FILE_VARIABLE, error)
        case _:
            raise error
    return FAILED


def _launch(options: RunOptions) -> NodeLaunch:
    from rallypoint_agent.node_launch import NodeLaunch

    program, args = _worker_command(options)
    return NodeLaunch(
        coordinators=options.coordinators,
        hosting=options.hosting,
        security=options.security,
        job=options.job,
        job_spec=options.job_spec,
        nproc_per_node=options.nproc_per_node,
        role=options.role,
        entrypoint=program,
        args=args,
        entrypoint_name=os.path.basename(options.script),
        monitor_interval=options.monitor_interval,
        connect_timeout_ms=options.connect_timeout_ms,
        event_log_handler=options.event_log_handler,
        metric_handler=options.metric_handler,
        node_rank=options.node_rank,
        node_name=options.node_name,
        local_addr=options.local_addr,
        master_addr=options.master_addr,
        master_port=options.master_port,
        port_range=options.port_range,
        virtual_local_rank=options.virtual_local_rank,
        numa_options=_numa_options(options.numa_binding) if options.numa_binding else None,
        duplicate_stdout_filters=options.duplicate_stdout_filters,
        duplicate_stderr_filters=options.duplicate_stderr_filters,
        log_line_prefix_template=os.environ.get(PREFIX_TEMPLATE_VARIABLE),
    )


def _numa_options(mode: AffinityMode) -> NumaOptions:
    from rallypoint_agent.numa import NumaOptions

    return NumaOptions(mode)


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
    root = logging.getLogger()
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("rallypoint_agent").setLevel(level)
    with contextlib.closing(Background("log")) as background:
        root.addHandler(HandlerInBackground(writer, background))
        yield


def _complain(message: str) -> None:
    print(f"rallypoint run: {message}", file=sys.stderr)
