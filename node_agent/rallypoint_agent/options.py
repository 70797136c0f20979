"""The command line of ``rallypoint run``: torchrun's flags, and the job's policies.

A flag that is not given comes from the environment: PET_<FLAG>, as with torchrun, or the
variable that its help names. Whatever is wrong is one UsageError, one line long.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from rallypoint.model import Endpoint, JobSpec, ScaleUp
from rallypoint_agent.logs import Std

DEFAULT_COORDINATOR_PORT = 29400
MAX_LOCAL_WORLD_SIZE = 4096

_MS = {"ms": 1, "s": 1_000, "": 1_000, "m": 60_000, "h": 3_600_000}


class UsageError(Exception):
    """The command line makes no sense. Its text is all the user is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What ``rallypoint run`` was asked to do.

    ``coordinators``: its endpoints; none means a coordinator of our own.
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


def duration_ms(text: str) -> int:
    """Milliseconds in ``30s``, ``10m``, ``1h``, ``500ms`` or plain seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text.strip())
    if found is None:
        raise ValueError("it must be a number and one of ms, s, m, h, as in 30s")
    return round(float(found[1]) * _MS[found[2]])


def _nodes(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    if found is None:
        raise ValueError("it must be N or MIN:MAX")
    low, high = int(found[1]), int(found[2] or found[1])
    if low < 1:
        raise ValueError("at least one node is needed")
    if low > high:
        raise ValueError("the minimum is above the maximum")
    return low, high


def _endpoints(text: str) -> tuple[Endpoint, ...]:
    return tuple(_endpoint(item.strip()) for item in text.split(","))


def _endpoint(text: str) -> Endpoint:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]/]+)(?::(\d+))?", text)
    if found is None:
        raise ValueError("it must be HOST:PORT, an IPv6 address in brackets")
    return Endpoint(found[1].strip("[]"), _port(found[2] or str(DEFAULT_COORDINATOR_PORT)))


def _port(text: str) -> int:
    port = _whole(text)
    if not 1 <= port <= 65535:
        raise ValueError("a port must be 1 to 65535")
    return port


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise ValueError("it must be a whole number, 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    value = duration_ms(text) / 1000
    if value <= 0:
        raise ValueError("it must be more than 0 s")
    return value


def _scale_up(text: str) -> tuple[ScaleUp, int]:
    when, _, delay = text.partition("=")
    if when == "after" and delay:
        return ScaleUp.AFTER, duration_ms(delay)
    by_name = {"immediate": ScaleUp.IMMEDIATE, "on-restart": ScaleUp.ON_RESTART}
    if text not in by_name:
        raise ValueError("it must be immediate, on-restart or after=TIME")
    return by_name[text], 0


def _exit_codes(text: str) -> tuple[int, ...]:
    codes = sorted({_whole(item.strip()) for item in text.split(",")})
    if not all(1 <= code <= 255 for code in codes):
        raise ValueError("an exit code that can mean a failure is 1 to 255")
    return tuple(codes)


def _truth(text: str) -> bool:
    """A switch's variable: torchrun takes 0 and 1."""
    if text not in ("0", "1"):
        raise ValueError("it must be 0 or 1")
    return text == "1"


def _workers(text: str) -> int:
    """As torchrun's --nproc-per-node. ``gpu`` looks for devices as their driver shows them."""
    if text == "cpu":
        return _cpus()
    if text == "auto":
        return gpu_count() or _cpus()
    if text == "gpu":
        if count := gpu_count():
            return count
        raise ValueError("no NVIDIA GPU is visible on this node")
    if not re.fullmatch(r"\d+", text):
        raise ValueError("it must be a number, gpu, cpu or auto")
    if not 1 <= int(text) <= MAX_LOCAL_WORLD_SIZE:
        raise ValueError(f"it must be 1 to {MAX_LOCAL_WORLD_SIZE}")
    return int(text)


def gpu_count(environ: Mapping[str, str] = os.environ, devices: str = "/dev") -> int:
    """NVIDIA GPUs that workers of this node can use: the driver's device files, if not hidden."""
    present = [name for name in os.listdir(devices) if re.fullmatch(r"nvidia\d+", name)]
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if not present or visible is None:
        return len(present)
    # As the driver reads it: what follows the first nonsense is not seen.
    entries = [entry.strip() for entry in visible.split(",")]
    valid = [re.fullmatch(r"\d+|(GPU|MIG)-\S+", entry) is not None for entry in entries]
    return valid.index(False) if False in valid else len(valid)


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _text(text: str) -> str:
    return text


def _switch(name: str, help: str, more_names: tuple[str, ...] = ()) -> _Flag:
    return _Flag(name=name, read=_truth, default=False, help=help, more_names=more_names)


def _policy(name: str, default_ms: int, help: str) -> _Flag:
    """A duration that every agent of the job must agree on."""
    text = f"{help} (default {default_ms / 1000:g}s)"
    return _Flag(name=name, read=duration_ms, default=default_ms, help=text, metavar="TIME")


_JOB = JobSpec()

_FLAGS = (
    _Flag(
        name="coordinator",
        read=_endpoints,
        default=(),
        metavar="HOST:PORT[,HOST:PORT]",
        help="the coordinator; or RALLYPOINT_COORDINATOR",
        more_names=("rdzv-endpoint",),
        more_variables=("RALLYPOINT_COORDINATOR", "PET_RDZV_ENDPOINT"),
    ),
    _switch("standalone", "one node, with a coordinator of its own"),
    _Flag(
        name="nnodes",
        read=_nodes,
        default=(1, 1),
        metavar="N|MIN:MAX",
        help="how many nodes (default 1)",
    ),
    _Flag(
        name="nproc-per-node",
        read=_workers,
        default=1,
        metavar="N|gpu|cpu|auto",
        help="how many workers on this node (default 1)",
    ),
    _Flag(name="rdzv-id", read=_text, default="", metavar="ID", help="the job's name"),
    _Flag(
        name="max-restarts",
        read=_whole,
        default=_JOB.max_restarts,
        metavar="N",
        help="collective restarts that the whole job may spend (default 0)",
    ),
    _Flag(
        name="node-rank",
        read=_whole,
        default=None,
        metavar="N",
        help="orders the nodes' ranks; lower comes first",
    ),
    _Flag(
        name="node-name",
        read=_text,
        default=None,
        metavar="NAME",
        help="this node's name in the job (default: the host name)",
    ),
    _Flag(
        name="local-addr",
        read=_text,
        default=None,
        metavar="ADDR",
        help="the address under which the other nodes reach this one",
    ),
    _Flag(
        name="master-port",
        read=_port,
        default=None,
        metavar="PORT",
        help="where workers meet if rank 0 is on this node (default: a free port)",
    ),
    _Flag(name="role", read=_text, default="default", metavar="NAME", help="the workers' role"),
    _Flag(
        name="log-dir",
        read=_text,
        default=None,
        metavar="DIR",
        help="write the workers' output there as well (default: a new temporary folder)",
    ),
    _Flag(
        name="redirects",
        read=Std.from_str,
        default=Std.NONE,
        metavar="STD",
        help="write to files only: 0 none, 1 stdout, 2 stderr, 3 both, or by local rank 0:1,1:3",
        more_names=("r",),
    ),
    _Flag(
        name="tee",
        read=Std.from_str,
        default=Std.NONE,
        metavar="STD",
        help="write to files and show; values as of --redirects",
        more_names=("t",),
    ),
    _Flag(
        name="monitor-interval",
        read=_seconds,
        default=0.1,
        metavar="TIME",
        help="look at the workers at least so often (default 0.1s)",
    ),
    _Flag(
        name="connect-timeout",
        read=duration_ms,
        default=60_000,
        metavar="TIME",
        help="how long to look for a coordinator at first (default 60s)",
    ),
    _switch("module", "the script is a module, as with python -m", more_names=("m",)),
    _switch("no-python", "the script is a program: run it without Python"),
    _Flag(
        name="python",
        read=_text,
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
        read=_scale_up,
        default=(_JOB.scale_up, _JOB.scale_up_delay_ms),
        metavar="WHEN",
        help="take in late nodes: immediate (default), on-restart, or after=TIME from the first one's arrival",
    ),
    _policy("rejoin-wait", _JOB.rejoin_wait_ms, "how long to wait for a lost node to come back before going on"),
    _Flag(
        name="no-restart-exit-codes",
        read=_exit_codes,
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
    return _options(values, given["script"], tuple(given["script_args"]))


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
    if flag.read is _truth:
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
    if values["no_python"]:
        if values["module"]:
            raise UsageError("--module and --no-python exclude each other")
        return
    if not values["module"] and not os.path.exists(script):
        raise UsageError(f"no such script: {script}")
    if values["python"] and not shutil.which(values["python"]):
        raise UsageError(f"no such program to run the script with: {values['python']}")


def _options(values: dict[str, Any], script: str, script_args: tuple[str, ...]) -> RunOptions:
    min_nodes, max_nodes = values.pop("nnodes")
    scale_up, scale_up_delay_ms = values.pop("scale_up")
    standalone, coordinators = values.pop("standalone"), values.pop("coordinator")
    if max_nodes > 1:
        _check_several_nodes(standalone, coordinators, values["rdzv_id"])
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
        script=script,
        script_args=script_args,
        **values,
    )


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
