"""The flags of ``rallypoint run``: names, values, defaults, help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rallypoint import durations
from rallypoint.model import JobSpec
from rallypoint.security.client import FLAGS as SECURITY_FLAGS
from rallypoint.security.client import SecurityFlag
from rallypoint.values import dataclass
from rallypoint_agent import flag_values, rdzv_conf
from rallypoint_agent.logs import Std

SHUTDOWN_TIMEOUT_VARIABLE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""torch's, besides the flag's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag. ``read`` turns its text into its value and raises ValueError.

    ``more_variables`` count before the flag's own PET_ variable, ``last_variables`` after it.
    """

    name: str
    read: Callable[[str], Any]
    default: Any
    help: str
    metavar: str = ""
    more_names: tuple[str, ...] = ()
    more_variables: tuple[str, ...] = ()
    last_variables: tuple[str, ...] = ()

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
        return (*self.more_variables, f"PET_{self.dest.upper()}", *self.last_variables)


def _switch(name: str, help: str, more_names: tuple[str, ...] = ()) -> Flag:
    return Flag(name=name, read=flag_values.truth, default=False, help=help, more_names=more_names)


def _policy(name: str, default_ms: int, help: str, *last_variables: str) -> Flag:
    """A duration that every agent of the job must agree on."""
    return Flag(
        name=name,
        read=durations.duration_ms,
        default=default_ms,
        help=f"{help} (default {default_ms / 1000:g}s)",
        metavar="TIME",
        last_variables=last_variables,
    )


def _security(flag: SecurityFlag) -> Flag:
    return Flag(
        name=flag.name,
        read=flag_values.path,
        default="",
        metavar="FILE",
        help=flag.help,
        more_variables=(flag.variable,),
    )


_JOB = JobSpec()

CONNECT_TIMEOUT_MS = 60_000
"""How long to look for a coordinator that is there already."""

RDZV_CONF = Flag(
    name="rdzv-conf",
    read=rdzv_conf.read,
    default=rdzv_conf.RdzvConf(),
    metavar="KEY=VALUE,...",
    help="store=agent: this agent, not rank 0's worker, serves the workers' store; or some flags' values",
)

FLAGS = (
    Flag(
        name="coordinator",
        read=flag_values.meeting_endpoints,
        default=(),
        metavar="HOST:PORT[,HOST:PORT]",
        help="the coordinator; or RALLYPOINT_COORDINATOR",
        more_names=("rdzv-endpoint",),
        more_variables=("RALLYPOINT_COORDINATOR", "PET_RDZV_ENDPOINT"),
    ),
    Flag(
        name="rdzv-backend",
        read=flag_values.rdzv_backend,
        default="rallypoint",
        metavar="NAME",
        help="c10d or static: the coordinator is started on the host of --rdzv-endpoint (static: or --master-addr),"
        " unless one is there; rallypoint (default): it is there",
    ),
    *map(_security, SECURITY_FLAGS),
    _switch("insecure", "let a token go to another machine in plain text"),
    _switch("standalone", "one node, with a coordinator of its own"),
    Flag(
        name="nnodes",
        read=flag_values.nodes,
        default=(1, 1),
        metavar="N|MIN:MAX",
        help="how many nodes (default 1)",
    ),
    Flag(
        name="nproc-per-node",
        read=flag_values.workers,
        default=1,
        metavar="N|gpu|xpu|cpu|auto",
        help="how many workers on this node (default 1)",
    ),
    Flag(
        name="rdzv-id",
        read=flag_values.text,
        default="",
        metavar="ID",
        help="the job's name (default with torchrun's backends: none)",
    ),
    Flag(
        name="max-restarts",
        read=flag_values.whole,
        default=_JOB.max_restarts,
        metavar="N",
        help="collective restarts that the whole job may spend (default 0)",
    ),
    Flag(
        name="node-rank",
        read=flag_values.node_rank,
        default=None,
        metavar="N",
        help="orders the nodes' ranks; lower comes first",
    ),
    Flag(
        name="node-name",
        read=flag_values.text,
        default=None,
        metavar="NAME",
        help="this node's name in the job (default: the host name)",
    ),
    Flag(
        name="local-addr",
        read=flag_values.text,
        default=None,
        metavar="ADDR",
        help="the address under which the other nodes reach this one",
    ),
    Flag(
        name="master-port",
        read=flag_values.port,
        default=None,
        metavar="PORT",
        help="where workers meet if rank 0 is on this node (default: a free port)",
    ),
    Flag(
        name="master-addr",
        read=flag_values.text,
        default=None,
        metavar="ADDR",
        help="where workers meet if rank 0 is on this node (default: --local-addr, or what reaches the coordinator);"
        " without --rdzv-endpoint the coordinator is there as well, 100 below --master-port",
    ),
    Flag(
        name="port-range",
        read=flag_values.port_range,
        default=None,
        metavar="LOW-HIGH",
        help="workers meet at a port of this range, each round at the next free one",
    ),
    RDZV_CONF,
    Flag(
        name="numa-binding",
        read=flag_values.numa_binding,
        default=None,
        metavar="MODE",
        help="run each worker on CPUs near its GPU, local rank n having GPU n: node, socket, exclusive or core-complex",
    ),
    Flag(
        name="signals-to-handle",
        read=flag_values.signal_names,
        default=None,
        metavar="NAME[,NAME]",
        help="what ends the agent and its workers (default SIGTERM,SIGINT,SIGHUP,SIGQUIT)",
    ),
    Flag(name="role", read=flag_values.text, default="default", metavar="NAME", help="the workers' role"),
    Flag(
        name="log-dir",
        read=flag_values.path,
        default=None,
        metavar="DIR",
        help="write the workers' output there and show it, unless told otherwise (default: a new temporary folder)",
    ),
    Flag(
        name="redirects",
        read=Std.from_str,
        default=None,
        metavar="STD",
        help="write to files only: 0 none, 1 stdout, 2 stderr, 3 both, or by local rank 0:1,1:3",
        more_names=("r",),
    ),
    Flag(
        name="tee",
        read=Std.from_str,
        default=None,
        metavar="STD",
        help="write to files and show; values as of --redirects",
        more_names=("t",),
    ),
    Flag(
        name="local-ranks-filter",
        read=flag_values.local_ranks,
        default=frozenset(),
        metavar="N[,N]",
        help="show the output of these local ranks only; files are written all the same",
    ),
    Flag(
        name="duplicate-stdout-filters",
        read=flag_values.texts,
        default=(),
        metavar="TEXT[,TEXT]",
        help="copy the lines of --tee's stdout that have one of these into filtered_stdout.log",
    ),
    Flag(
        name="duplicate-stderr-filters",
        read=flag_values.texts,
        default=(),
        metavar="TEXT[,TEXT]",
        help="the same for stderr and filtered_stderr.log",
    ),
    Flag(
        name="logs-specs",
        read=flag_values.text,
        default=None,
        metavar="NAME",
        help="a LogsSpecs of your own: its entry point in the group torchrun.logs_specs",
    ),
    Flag(
        name="event-log-handler",
        read=flag_values.text,
        default="null",
        metavar="NAME",
        help="where events go: null (default), console, or an entry point of rallypoint.event_handlers",
    ),
    Flag(
        name="metric-handler",
        read=flag_values.text,
        default="null",
        metavar="NAME",
        help="where metrics go: null (default), console, or an entry point of rallypoint.metric_handlers",
    ),
    Flag(
        name="monitor-interval",
        read=flag_values.monitor_interval,
        default=0.1,
        metavar="TIME",
        help="look at the workers at least so often, at most 1h (default 0.1s)",
    ),
    Flag(
        name="connect-timeout",
        read=durations.timeout_ms,
        default=None,
        metavar="TIME",
        help="how long to look for a coordinator at first, more than 0 (default 60s; with torchrun's backends, where"
        " another node may have yet to start it, --join-timeout)",
    ),
    _switch("module", "the script is a module, as with python -m", more_names=("m",)),
    _switch("run-path", "run the script with runpy.run_path, in the worker's interpreter"),
    Flag(
        name="start-method",
        read=flag_values.start_method,
        default="spawn",
        metavar="NAME",
        help="spawn, fork or forkserver: no effect on a script or a program",
    ),
    _switch("virtual-local-rank", "every worker sees LOCAL_RANK 0 and one CUDA device of its own"),
    _switch("no-python", "the script is a program: run it without Python"),
    Flag(
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
    Flag(
        name="scale-up",
        read=flag_values.scale_up,
        default=(_JOB.scale_up, _JOB.scale_up_delay_ms),
        metavar="WHEN",
        help="take in late nodes: immediate (default), on-restart, or after=TIME from the first one's arrival",
    ),
    _policy("rejoin-wait", _JOB.rejoin_wait_ms, "how long to wait for a lost node to come back before going on"),
    Flag(
        name="no-restart-exit-codes",
        read=flag_values.exit_codes,
        default=(),
        metavar="N[,N]",
        help="fail the job at once if the first worker that fails exits with one of these",
    ),
    _policy(
        "shutdown-timeout",
        _JOB.shutdown_timeout_ms,
        "from SIGTERM to SIGKILL at a teardown; or TORCH_ELASTIC_SHUTDOWN_TIMEOUT",
        SHUTDOWN_TIMEOUT_VARIABLE,
    ),
)
