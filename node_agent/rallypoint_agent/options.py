"""The command line of ``rallypoint run``: torchrun's flags, and the job's policies.

A flag that is not given comes from the environment: PET_<FLAG>, as with torchrun, or the
variable that its help names. Whatever is wrong is one UsageError, one line long.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from rallypoint.model import Endpoint, JobSpec
from rallypoint_agent import flag_values
from rallypoint_agent.logs import Std

_NOT_HAD_YET = (
    *("RDZV_BACKEND", "RDZV_CONF", "RUN_PATH", "START_METHOD", "MASTER_ADDR", "SIGNALS_TO_HANDLE"),
    "VIRTUAL_LOCAL_RANK",
)
"""torchrun's flags that there are none of here."""


class UsageError(Exception):
    """The command line makes no sense. Its text is all the user is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What ``rallypoint run`` was asked to do.

    ``coordinators``: its endpoints; none means a coordinator of our own. ``logs_specs``, ``event_log_handler`` and
    ``metric_handler`` are names.
    """

    coordinators: tuple[Endpoint, ...]
    job: str
    job_spec: JobSpec
    nproc_per_node: int
    role: str
    node_rank: int | None
    node_name: str | None
    local_addr: str | None
    master_port: int | None
    log_dir: str | None
    redirects: Std | dict[int, Std]
    tee: Std | dict[int, Std]
    local_ranks_filter: frozenset[int]
    duplicate_stdout_filters: tuple[str, ...]
    duplicate_stderr_filters: tuple[str, ...]
    logs_specs: str | None
    event_log_handler: str
    metric_handler: str
    monitor_interval: float
    connect_timeout_ms: int
    module: bool
    no_python: bool
    python: str | None
    script: str
    script_args: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flag:
    """One flag. ``read`` turns its text into its value and raises ValueError."""

    name: str
    read: Callable[[str], Any]
    default: Any
    help: str
    metavar: str = ""
    more_names: tuple[str, ...] = ()
    more_variables: tuple[str, ...] = ()

    @property
    def dest(self) -> str:
        return self.name.replace("-", "_")

    @property
    def option_strings(self) -> list[str]:
        return [f"-{name}" if len(name) == 1 else f"--{name}" for name in (self.name, *self.more_names)]

    @property
    def torchrun_spellings(self) -> list[str]:
        """As torchrun has it, with underscores; not shown in the help."""
        names = (name for name in (self.name, *self.more_names) if "-" in name)
        return [f"--{name.replace('-', '_')}" for name in names]

    @property
    def variables(self) -> tuple[str, ...]:
        return (*self.more_variables, f"PET_{self.dest.upper()}")


def _switch(name: str, help: str, more_names: tuple[str, ...] = ()) -> _Flag:
    return _Flag(name=name, read=flag_values.truth, default=False, help=help, more_names=more_names)


def _policy(name: str, default_ms: int, help: str) -> _Flag:
    """A duration that every agent of the job must agree on."""
    text = f"{help} (default {default_ms / 1000:g}s)"
    return _Flag(name=name, read=flag_values.duration_ms, default=default_ms, help=text, metavar="TIME")


_JOB = JobSpec()

_FLAGS = (
    _Flag(
        name="coordinator",
        read=flag_values.endpoints,
        default=(),
        metavar="HOST:PORT[,HOST:PORT]",
        help="the coordinator; or RALLYPOINT_COORDINATOR",
        more_names=("rdzv-endpoint",),
        more_variables=("RALLYPOINT_COORDINATOR", "PET_RDZV_ENDPOINT"),
    ),
    _switch("standalone", "one node, with a coordinator of its own"),
    _Flag(
        name="nnodes",
        read=flag_values.nodes,
        default=(1, 1),
        metavar="N|MIN:MAX",
        help="how many nodes (default 1)",
    ),
    _Flag(
        name="nproc-per-node",
        read=flag_values.workers,
        default=1,
        metavar="N|gpu|cpu|auto",
        help="how many workers on this node (default 1)",
    ),
    _Flag(name="rdzv-id", read=flag_values.text, default="", metavar="ID", help="the job's name"),
    _Flag(
        name="max-restarts",
        read=flag_values.whole,
        default=_JOB.max_restarts,
        metavar="N",
        help="collective restarts that the whole job may spend (default 0)",
    ),
    _Flag(
        name="node-rank",
        read=flag_values.node_rank,
        default=None,
        metavar="N",
        help="orders the nodes' ranks; lower comes first",
    ),
    _Flag(
        name="node-name",
        read=flag_values.text,
        default=None,
        metavar="NAME",
        help="this node's name in the job (default: the host name)",
    ),
    _Flag(
        name="local-addr",
        read=flag_values.text,
        default=None,
        metavar="ADDR",
        help="the address under which the other nodes reach this one",
    ),
    _Flag(
        name="master-port",
        read=flag_values.port,
        default=None,
        metavar="PORT",
        help="where workers meet if rank 0 is on this node (default: a free port)",
    ),
    _Flag(name="role", read=flag_values.text, default="default", metavar="NAME", help="the workers' role"),
    _Flag(
        name="log-dir",
        read=flag_values.path,
        default=None,
        metavar="DIR",
        help="write the workers' output there and show it, unless told otherwise (default: a new temporary folder)",
    ),
    _Flag(
        name="redirects",
        read=Std.from_str,
        default=None,
        metavar="STD",
        help="write to files only: 0 none, 1 stdout, 2 stderr, 3 both, or by local rank 0:1,1:3",
        more_names=("r",),
    ),
    _Flag(
        name="tee",
        read=Std.from_str,
        default=None,
        metavar="STD",
        help="write to files and show; values as of --redirects",
        more_names=("t",),
    ),
    _Flag(
        name="local-ranks-filter",
        read=flag_values.local_ranks,
        default=frozenset(),
        metavar="N[,N]",
        help="show the output of these local ranks only; files are written all the same",
    ),
    _Flag(
        name="duplicate-stdout-filters",
        read=flag_values.texts,
        default=(),
        metavar="TEXT[,TEXT]",
        help="copy the lines of --tee's stdout that have one of these into filtered_stdout.log",
    ),
    _Flag(
        name="duplicate-stderr-filters",
        read=flag_values.texts,
        default=(),
        metavar="TEXT[,TEXT]",
        help="the same for stderr and filtered_stderr.log",
    ),
    _Flag(
        name="logs-specs",
        read=flag_values.text,
        default=None,
        metavar="NAME",
        help="a LogsSpecs of your own: its entry point in the group torchrun.logs_specs",
    ),
    _Flag(
        name="event-log-handler",
        read=flag_values.text,
        default="null",
        metavar="NAME",
        help="where events go: null (default), console, or an entry point of rallypoint.event_handlers",
    ),
    _Flag(
        name="metric-handler",
        read=flag_values.text,
        default="null",
        metavar="NAME",
        help="where metrics go: null (default), console, or an entry point of rallypoint.metric_handlers",
    ),
    _Flag(
        name="monitor-interval",
        read=flag_values.monitor_interval,
        default=0.1,
        metavar="TIME",
        help="look at the workers at least so often, at most 1h (default 0.1s)",
    ),
    _Flag(
        name="connect-timeout",
        read=flag_values.timeout_ms,
        default=60_000,
        metavar="TIME",
        help="how long to look for a coordinator at first, more than 0 (default 60s)",
    ),
    _switch("module", "the script is a module, as with python -m", more_names=("m",)),
    _switch("no-python", "the script is a program: run it without Python"),
    _Flag(
        name="python",
        read=flag_values.path,
        default=None,
        metavar="PATH",
        help="what runs the script; or PYTHON_EXEC (default: what runs this agent)",
        more_variables=("PYTHON_EXEC",),
    ),
    _policy("lease-ttl", _JOB.lease_ttl_ms, "a node not heard for so long is lost"),
    _policy(
        "coordinator-outage",
        _JOB.coordinator_outage_ms,
        "workers go on for so long while nobody listens at the coordinator's address",
    ),
    _policy("join-timeout", _JOB.join_timeout_ms, "how long to wait for enough nodes"),
    _policy(
        "last-call-timeout",
        _JOB.last_call_timeout_ms,
        "how long to wait for more nodes once there are enough",
    ),
    _policy(
        "exit-barrier-timeout",
        _JOB.exit_barrier_timeout_ms,
        "how long to look for the coordinator after the workers succeeded",
    ),
    _Flag(
        name="scale-up",
        read=flag_values.scale_up,
        default=(_JOB.scale_up, _JOB.scale_up_delay_ms),
        metavar="WHEN",
        help="take in late nodes: immediate (default), on-restart, or after=TIME from the first one's arrival",
    ),
    _policy("rejoin-wait", _JOB.rejoin_wait_ms, "how long to wait for a lost node to come back before going on"),
    _Flag(
        name="no-restart-exit-codes",
        read=flag_values.exit_codes,
        default=(),
        metavar="N[,N]",
        help="fail the job at once if the first worker that fails exits with one of these",
    ),
    _policy("shutdown-timeout", _JOB.shutdown_timeout_ms, "from SIGTERM to SIGKILL at a teardown"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            message = "no script to run: rallypoint run [flags] script.py [its arguments]"
        raise UsageError(message)


def parse(argv: list[str], environ: Mapping[str, str] = os.environ) -> RunOptions:
    """Read a command line. Raises UsageError; prints the help and raises SystemExit if asked."""
    given = vars(_parser().parse_args(argv))
    values = {flag.dest: _value(flag, given[flag.dest], environ) for flag in _FLAGS}
    _check_program(values, given["script"])
    _check_local_ranks(values)
    _check_filters(values)
    return _options(values, given["script"], tuple(given["script_args"]))


def ignored_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What of torchrun's is set, and means nothing here."""
    names = (f"PET_{name}" for name in _NOT_HAD_YET)
    return [name for name in names if environ.get(name, "") not in ("", "0")]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rallypoint run",
        description="Run this node's workers of a job.",
        epilog="Each flag can be set as PET_<FLAG>. TIME is a number with ms, s, m or h.",
    )
    for flag in _FLAGS:
        _add(parser, flag, flag.option_strings, flag.help)
        if flag.torchrun_spellings:
            _add(parser, flag, flag.torchrun_spellings, argparse.SUPPRESS)
    parser.add_argument("script", help="what every worker runs")
    parser.add_argument("script_args", nargs=argparse.REMAINDER, metavar="...")
    return parser


def _add(parser: _Parser, flag: _Flag, names: list[str], help: str) -> None:
    if flag.read is flag_values.truth:
        parser.add_argument(*names, dest=flag.dest, action="store_const", const="1", help=help)
    else:
        parser.add_argument(*names, dest=flag.dest, metavar=flag.metavar, help=help)


def _value(flag: _Flag, given: str | None, environ: Mapping[str, str]) -> Any:
    if given is not None:
        return _read(flag, f"--{flag.name}", given)
    for variable in flag.variables:
        if text := environ.get(variable):
            return _read(flag, variable, text)
    return flag.default


def _read(flag: _Flag, source: str, text: str) -> Any:
    try:
        return flag.read(text)
    except ValueError as error:
        raise UsageError(f"{source} {text}: {error}") from None


def _check_program(values: Mapping[str, Any], script: str) -> None:
    """Refuse what cannot be run. A program of --no-python is found, or not, by the worker."""
    if not script:
        raise UsageError("the script's name is empty")
    if values["no_python"]:
        if values["module"]:
            raise UsageError("--module and --no-python exclude each other")
        return
    if not values["module"]:
        _check_script(script)
    if values["python"] and not shutil.which(values["python"]):
        raise UsageError(f"no such program to run the script with: {values['python']}")


def _check_script(script: str) -> None:
    if not os.path.exists(script):
        raise UsageError(f"no such script: {script}")
    if os.path.isdir(script) and not os.path.exists(os.path.join(script, "__main__.py")):
        raise UsageError(f"a folder without a __main__.py is no script: {script}")


def _check_local_ranks(values: Mapping[str, Any]) -> None:
    count = values["nproc_per_node"]
    for name in ("redirects", "tee"):
        ranks = values[name] if isinstance(values[name], dict) else []
        if beyond := [rank for rank in ranks if rank >= count]:
            raise UsageError(f"--{name}: there is no local rank {beyond[0]}, --nproc-per-node is {count}")


def _options(values: dict[str, Any], script: str, script_args: tuple[str, ...]) -> RunOptions:
    min_nodes, max_nodes = values.pop("nnodes")
    scale_up, scale_up_delay_ms = values.pop("scale_up")
    standalone, coordinators = values.pop("standalone"), values.pop("coordinator")
    if max_nodes > 1:
        _check_several_nodes(standalone, coordinators, values["rdzv_id"])
    redirects, tee = _streams(values)
    return RunOptions(
        coordinators=() if standalone else coordinators,
        job=_job_name(values.pop("rdzv_id")),
        job_spec=JobSpec(
            min_nodes=min_nodes,
            max_nodes=max_nodes,
            max_restarts=values.pop("max_restarts"),
            lease_ttl_ms=values.pop("lease_ttl"),
            coordinator_outage_ms=values.pop("coordinator_outage"),
            join_timeout_ms=values.pop("join_timeout"),
            last_call_timeout_ms=values.pop("last_call_timeout"),
            exit_barrier_timeout_ms=values.pop("exit_barrier_timeout"),
            shutdown_timeout_ms=values.pop("shutdown_timeout"),
            scale_up=scale_up,
            scale_up_delay_ms=scale_up_delay_ms,
            rejoin_wait_ms=values.pop("rejoin_wait"),
            no_restart_exit_codes=values.pop("no_restart_exit_codes"),
        ),
        connect_timeout_ms=values.pop("connect_timeout"),
        redirects=redirects,
        tee=tee,
        script=script,
        script_args=script_args,
        **values,
    )


def _streams(values: dict[str, Any]) -> tuple[Std | dict[int, Std], Std | dict[int, Std]]:
    """What is redirected and what is teed. Who names a folder for logs, and says neither, wants both."""
    redirects, tee = values.pop("redirects"), values.pop("tee")
    if redirects is None and tee is None and values["log_dir"] not in (None, os.devnull):
        tee = Std.ALL
    return redirects or Std.NONE, tee or Std.NONE


def _check_filters(values: Mapping[str, Any]) -> None:
    if values["log_dir"] != os.devnull:
        return
    for name in ("duplicate-stdout-filters", "duplicate-stderr-filters"):
        if values[name.replace("-", "_")]:
            raise UsageError(f"--{name} needs files, but --log-dir is {os.devnull}")


def _check_several_nodes(standalone: bool, coordinators: tuple[Endpoint, ...], job: str) -> None:
    if standalone:
        raise UsageError("--standalone is one node: --nnodes asks for more")
    if not coordinators:
        raise UsageError("several nodes need a coordinator: give --coordinator HOST:PORT")
    if not job:
        raise UsageError("several nodes need the job's name: give --rdzv-id")


def _job_name(given: str) -> str:
    """A single node needs no name that others know."""
    return given or os.urandom(8).hex()
