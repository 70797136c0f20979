"""The command line of ``rallypoint run``: torchrun's flags, and the job's policies.

A flag that is not given comes from the environment: PET_<FLAG>, as with torchrun, or the
variable that its help names. Whatever is wrong is one UsageError, one line long.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from rallypoint.model import Endpoint, JobSpec
from rallypoint.security.client import FLAGS as SECURITY_FLAGS
from rallypoint.security.client import NO_SECURITY, ClientSecurity, CredentialsError, check
from rallypoint.values import dataclass
from rallypoint_agent import flag_values
from rallypoint_agent.logs import Std
from rallypoint_agent.meeting import Hosting, Meeting, meeting
from rallypoint_agent.run_flags import CONNECT_TIMEOUT_MS, FLAGS, RDZV_CONF, Flag

if TYPE_CHECKING:
    from rallypoint_agent.numa import AffinityMode


class UsageError(Exception):
    """The command line makes no sense. Its text is all the user is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What ``rallypoint run`` was asked to do.

    ``coordinators``: its endpoints; none means a coordinator of our own; ``hosting``: whether to start it there.
    ``logs_specs``, ``event_log_handler`` and ``metric_handler`` are names. ``signals_to_handle``: None means the
    environment's, or torch's.
    """

    coordinators: tuple[Endpoint, ...]
    hosting: Hosting
    security: ClientSecurity
    job: str
    job_spec: JobSpec
    nproc_per_node: int
    role: str
    node_rank: int | None
    node_name: str | None
    local_addr: str | None
    master_addr: str | None
    master_port: int | None
    port_range: range | None
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
    ignored_conf: tuple[str, ...]
    ignored_flags: tuple[str, ...]
    connect_timeout_ms: int
    signals_to_handle: str | None
    numa_binding: AffinityMode | None
    virtual_local_rank: bool
    module: bool
    run_path: bool
    no_python: bool
    python: str | None
    script: str
    script_args: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            message = "no script to run: rallypoint run [flags] script.py [its arguments]"
        raise UsageError(message)


def parse(argv: list[str], environ: Mapping[str, str] = os.environ) -> RunOptions:
    """Read a command line. Raises UsageError; prints the help and raises SystemExit if asked."""
    given = vars(_parser().parse_args(argv))
    conf = _value(RDZV_CONF, given[RDZV_CONF.dest], environ, {}).flags
    values = {flag.dest: _value(flag, given[flag.dest], environ, conf) for flag in FLAGS}
    _check_program(values, given["script"])
    _check_local_ranks(values)
    _check_virtual_local_rank(values, environ)
    _check_filters(values)
    if values["master_port"] is not None and values["port_range"] is not None:
        raise UsageError("--master-port and --port-range exclude each other")
    return _options(values, given["script"], tuple(given["script_args"]))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rallypoint run",
        description="Run this node's workers of a job.",
        epilog="Each flag can be set as PET_<FLAG>. TIME is a number with ms, s, m or h.",
        formatter_class=_formatter_class(),
    )
    for flag in FLAGS:
        _add(parser, flag, flag.option_strings, flag.help)
        if flag.torchrun_spellings:
            _add(parser, flag, flag.torchrun_spellings, argparse.SUPPRESS)
    parser.add_argument("script", help="what every worker runs")
    parser.add_argument("script_args", nargs=argparse.REMAINDER, metavar="...")
    return parser


def _formatter_class() -> Any:
    """argparse's. It makes one for each flag that is added, and each one would ask how wide the terminal is."""
    return partial(argparse.HelpFormatter, width=shutil.get_terminal_size().columns - 2)


def _add(parser: _Parser, flag: Flag, names: list[str], help: str) -> None:
    if flag.read is flag_values.truth:
        parser.add_argument(*names, dest=flag.dest, action="store_const", const="1", help=help)
    else:
        parser.add_argument(*names, dest=flag.dest, metavar=flag.metavar, help=help)


def _value(flag: Flag, given: str | None, environ: Mapping[str, str], conf: Mapping[str, str]) -> Any:
    if given is not None:
        return _read(flag, f"--{flag.name}", given)
    for variable in flag.variables:
        if text := environ.get(variable):
            return _read(flag, variable, text)
    if flag.dest in conf:
        return _read(flag, f"--rdzv-conf {flag.dest}", conf[flag.dest])
    return flag.default


def _read(flag: Flag, source: str, text: str) -> Any:
    try:
        return flag.read(text)
    except ValueError as error:
        raise UsageError(f"{source} {text}: {error}") from None


def _check_program(values: Mapping[str, Any], script: str) -> None:
    """Refuse what cannot be run. A program of --no-python is found, or not, by the worker."""
    if not script:
        raise UsageError("the script's name is empty")
    ways = [f"--{name}" for name in ("module", "run-path", "no-python") if values[name.replace("-", "_")]]
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} exclude each other")
    if values["no_python"]:
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


def _check_virtual_local_rank(values: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    if not values["virtual_local_rank"]:
        return
    from rallypoint_agent.accelerators import DEVICES_VARIABLE

    visible, count = environ.get(DEVICES_VARIABLE), values["nproc_per_node"]
    if visible is not None and len(visible.split(",")) < count:
        raise UsageError(f"--virtual-local-rank: {count} workers, but {DEVICES_VARIABLE} is {visible}")


def _options(values: dict[str, Any], script: str, script_args: tuple[str, ...]) -> RunOptions:
    where = _meeting(values)
    min_nodes, max_nodes = values.pop("nnodes")
    scale_up, scale_up_delay_ms = values.pop("scale_up")
    conf = values.pop("rdzv_conf")
    security = _security(values, where.coordinators)
    redirects, tee = _streams(values)
    del values["start_method"]  # Read to be checked: its valid values change nothing.
    for name in ("rdzv_backend", "standalone", "coordinator", "rdzv_id", "master_addr", "master_port"):
        del values[name]  # What they come to is where the nodes meet.
    join_timeout_ms = values.pop("join_timeout")
    return RunOptions(
        coordinators=where.coordinators,
        # What we would start speaks no TLS.
        hosting=Hosting.NEVER if security.uses_tls else where.hosting,
        security=security,
        job=where.job or os.urandom(8).hex(),  # A single node needs no name that others know.
        master_addr=where.master_addr,
        master_port=where.master_port,
        job_spec=JobSpec(
            min_nodes=max_nodes if where.needs_all else min_nodes,
            max_nodes=max_nodes,
            max_restarts=values.pop("max_restarts"),
            lease_ttl_ms=values.pop("lease_ttl"),
            coordinator_outage_ms=values.pop("coordinator_outage"),
            join_timeout_ms=join_timeout_ms,
            last_call_timeout_ms=values.pop("last_call_timeout"),
            exit_barrier_timeout_ms=values.pop("exit_barrier_timeout"),
            shutdown_timeout_ms=values.pop("shutdown_timeout"),
            scale_up=scale_up,
            scale_up_delay_ms=scale_up_delay_ms,
            rejoin_wait_ms=values.pop("rejoin_wait"),
            no_restart_exit_codes=values.pop("no_restart_exit_codes"),
            store_host=conf.store_host,
        ),
        connect_timeout_ms=values.pop("connect_timeout") or _connect_timeout_ms(where, join_timeout_ms),
        redirects=redirects,
        tee=tee,
        ignored_conf=conf.ignored if where.started_by_agents or conf.is_host is None else (*conf.ignored, "is_host"),
        ignored_flags=where.ignored,
        script=script,
        script_args=script_args,
        **values,
    )


def _security(values: dict[str, Any], coordinators: tuple[Endpoint, ...]) -> ClientSecurity:
    """How we show who we are. A coordinator of our own does not ask."""
    security = ClientSecurity(**{flag.field: values.pop(flag.field) for flag in SECURITY_FLAGS})
    insecure = values.pop("insecure")
    if not coordinators:
        return NO_SECURITY
    try:
        check(security, (host for host, _ in coordinators), insecure=insecure)
    except CredentialsError as error:
        raise UsageError(str(error)) from None
    return security


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


def _meeting(values: Mapping[str, Any]) -> Meeting:
    try:
        return meeting(values)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _connect_timeout_ms(meeting: Meeting, join_timeout_ms: int) -> int:
    """A coordinator that agents start is there once its node is."""
    return max(CONNECT_TIMEOUT_MS, join_timeout_ms) if meeting.started_by_agents else CONNECT_TIMEOUT_MS
