"""What a LaunchConfig means, and what of it is refused by which name."""

from __future__ import annotations

import re
import signal
import sys
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from rallypoint.model import Endpoint, JobSpec, ScaleUp, StoreHost
from rallypoint.security.client import NO_SECURITY, ClientSecurity
from rallypoint_agent.launch_config import LaunchConfig, entrypoint_name, node_launch
from rallypoint_agent.node_launch import NodeLaunch
from support.certificates import Authority


def launch(*, environ: dict[str, str] | None = None, **config: Any) -> NodeLaunch:
    given = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 2, **config}
    return node_launch(LaunchConfig(**given), "train", ("x",), environ=environ or {})


def test_without_an_endpoint_it_is_one_nodes_with_a_coordinator_of_its_own() -> None:
    meant = launch()
    assert meant.coordinators == ()
    assert meant.job
    assert meant.job != launch().job
    assert (meant.role, meant.nproc_per_node, meant.job_spec.max_restarts) == ("default_role", 2, 3)


@pytest.mark.parametrize("backend", ["rallypoint", "c10d"])
def test_the_endpoint_is_the_coordinators(backend: str) -> None:
    meant = launch(min_nodes=2, max_nodes=4, run_id="j", rdzv_endpoint="h,[::1]:7", rdzv_backend=backend)
    assert meant.coordinators == (Endpoint("h", 29400), Endpoint("::1", 7))
    assert (meant.job, meant.job_spec.min_nodes, meant.job_spec.max_nodes) == ("j", 2, 4)


def test_rdzv_configs_are_policies_by_the_names_of_their_flags() -> None:
    configs = {
        "lease_ttl": "20s",
        "join_timeout": 90,
        "last_call_timeout": 0.5,
        "rejoin_wait": "1m",
        "exit_barrier_timeout": "5s",
        "coordinator_outage": "2h",
        "scale_up": "after=3s",
        "no_restart_exit_codes": "3,4",
        "store": "agent",
        "node_name": "n",
        "rank": 5,
        "connect_timeout": "7s",
    }
    meant = launch(rdzv_configs=configs)
    assert meant.job_spec == JobSpec(
        max_restarts=3,
        lease_ttl_ms=20_000,
        join_timeout_ms=90_000,
        last_call_timeout_ms=500,
        rejoin_wait_ms=60_000,
        exit_barrier_timeout_ms=5_000,
        coordinator_outage_ms=7_200_000,
        scale_up=ScaleUp.AFTER,
        scale_up_delay_ms=3_000,
        no_restart_exit_codes=(3, 4),
        store_host=StoreHost.AGENT,
    )
    assert (meant.node_name, meant.node_rank, meant.connect_timeout_ms) == ("n", 5, 7_000)


@pytest.mark.parametrize(
    ("config", "join_timeout_ms"),
    [
        ({}, 600_000),
        ({"rdzv_timeout": 12}, 12_000),
        ({"rdzv_configs": {"timeout": 13}}, 13_000),
        ({"rdzv_timeout": 12, "rdzv_configs": {"join_timeout": 14}}, 14_000),
    ],
)
def test_torchs_timeouts_of_the_rendezvous(config: dict[str, Any], join_timeout_ms: int) -> None:
    assert launch(**config).job_spec.join_timeout_ms == join_timeout_ms


@pytest.mark.parametrize(
    ("given", "environ", "shutdown_timeout_ms"),
    [
        (None, {}, 30_000),
        (None, {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "4"}, 4_000),
        (5, {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "4"}, 5_000),
        (0, {}, 0),
    ],
)
def test_the_shutdown_timeout(given: float | None, environ: dict[str, str], shutdown_timeout_ms: int) -> None:
    assert launch(shutdown_timeout=given, environ=environ).job_spec.shutdown_timeout_ms == shutdown_timeout_ms


def test_the_signals_to_handle() -> None:
    assert launch().signals == (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    assert launch(signals_to_handle="SIGUSR1, SIGTERM").signals == (signal.SIGUSR1, signal.SIGTERM)


def test_what_a_worker_spec_has_is_passed_on() -> None:
    same: dict[str, Any] = {
        "monitor_interval": 0.5,
        "start_method": "forkserver",
        "log_line_prefix_template": "[${rank}]",
        "local_addr": "h",
        "event_log_handler": "console",
        "virtual_local_rank": True,
        "numa_options": "x",
    }
    meant = launch(**same, duplicate_stdout_filters=["a"], duplicate_stderr_filters=["b"])
    assert {name: getattr(meant, name) for name in same} == same
    assert (meant.duplicate_stdout_filters, meant.duplicate_stderr_filters) == (("a",), ("b",))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"rdzv_backend": "etcd"}, "rdzv_backend 'etcd' is not supported: leave it out"),
        ({"rdzv_backend": "static"}, "rdzv_backend 'static' is not supported"),
        ({"rdzv_endpoint": "h:x"}, "rdzv_endpoint h:x: it must be HOST:PORT"),
        ({"max_nodes": 2}, "set rdzv_endpoint"),
        ({"max_nodes": 2, "rdzv_endpoint": "h"}, "set run_id"),
        ({"rdzv_configs": {"read_timeout": 60}}, "rdzv_configs: 'read_timeout' is not known; there are connect_t"),
        ({"rdzv_configs": {"lease_ttl": "soon"}}, 'rdzv_configs["lease_ttl"]=soon: it must be a number'),
        ({"rdzv_configs": {"lease_ttl": 5}}, 'rdzv_configs["lease_ttl"] must be 8 s to 3600 s'),
        ({"rdzv_configs": {"store": "mine"}}, 'rdzv_configs["store"]=mine: store must be worker or agent'),
        ({"rdzv_configs": {"node_name": "a b"}}, 'rdzv_configs["node_name"] must be'),
        ({"metrics_cfg": {"a": "b"}}, "metrics_cfg has no effect"),
        ({"signals_to_handle": "SIGTERM,SIGNONE"}, "signals_to_handle: SIGNONE is no signal"),
        ({"signals_to_handle": "SIGTERM,SIGKILL"}, "signals_to_handle: SIGKILL cannot be handled"),
        ({"shutdown_timeout": -1}, "shutdown_timeout -1: it must be a number"),
        ({"environ": {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "x"}}, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT x: it must be"),
        ({"run_id": "a/b"}, "run_id must be"),
        ({"nproc_per_node": 0}, "nproc_per_node must be"),
        ({"min_nodes": 0}, "min_nodes must be"),
        ({"max_restarts": -1}, "max_restarts must be"),
        ({"local_addr": "a b"}, "local_addr must be a host name"),
        ({"event_log_handler": "nowhere"}, "event_log_handler nowhere: "),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        launch(**config)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"nproc_per_node": "2"}, "nproc_per_node must be a whole number, not '2'"),
        ({"min_nodes": None}, "min_nodes must be a whole number, not None"),
        ({"max_nodes": 2.0}, "max_nodes must be a whole number, not 2.0"),
        ({"max_restarts": True}, "max_restarts must be a whole number, not True"),
        ({"run_id": 5}, "run_id must be a text, not 5"),
        ({"local_addr": 5}, "local_addr must be a text or None, not 5"),
        ({"rdzv_configs": "timeout=3"}, "rdzv_configs must be a dict, not 'timeout=3'"),
        ({"monitor_interval": "0.1"}, "monitor_interval must be a number, not '0.1'"),
        ({"shutdown_timeout": "30s"}, "shutdown_timeout must be a number or None, not '30s'"),
        ({"signals_to_handle": ["SIGTERM"]}, "signals_to_handle must be a text, not ['SIGTERM']"),
        ({"duplicate_stdout_filters": "loss"}, "duplicate_stdout_filters must be a list of texts or None, not 'loss'"),
        ({"duplicate_stderr_filters": [1]}, "duplicate_stderr_filters must be a list of texts or None, not [1]"),
        ({"virtual_local_rank": "no"}, "virtual_local_rank must be True or False, not 'no'"),
    ],
)
def test_what_is_of_another_type_is_refused_by_its_name(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        launch(**config)


def test_other_kinds_of_numbers_are_numbers() -> None:
    assert launch(monitor_interval=Fraction(1, 2), rdzv_timeout=12).monitor_interval == 0.5


def test_every_field_is_checked_but_those_of_classes_of_their_own() -> None:
    """A misspelt annotation would be let be."""
    let_be = {"logs_specs", "numa_options"}
    for field in fields(LaunchConfig):
        if field.name not in let_be:
            wrong: dict[str, Any] = {field.name: object()}
            with pytest.raises(ValueError, match=f"^{field.name} must be"):
                launch(**wrong)


@pytest.mark.parametrize(
    ("entrypoint", "args", "name"),
    [
        (launch, (), "launch"),
        ("bin/train", ("x",), "bin/train"),
        (sys.executable, ("-u", "dir/train.py", "x"), "dir/train.py"),
        (sys.executable, ("-u", "-m", "pkg.train"), "pkg.train"),
        (sys.executable, ("-c",), sys.executable),
    ],
)
def test_the_entrypoints_name(entrypoint: Any, args: tuple[str, ...], name: str) -> None:
    assert entrypoint_name(entrypoint, args) == name


def test_how_we_show_who_we_are(tmp_path: Path) -> None:
    ca, token_file = Authority(tmp_path), tmp_path / "token"
    token_file.write_text("rpt_secret")
    given = {"token_file": str(token_file), "tls_ca": str(ca.cert)}
    wanted = ClientSecurity(str(token_file), str(ca.cert))
    assert launch(rdzv_endpoint="c:1", rdzv_configs=given).security == wanted
    variables = {f"RALLYPOINT_{name.upper()}": path for name, path in given.items()}
    assert launch(rdzv_endpoint="c:1", environ=variables).security == wanted
    assert launch(environ=variables).security == NO_SECURITY
    with pytest.raises(ValueError, match="No such file"):
        launch(rdzv_endpoint="c:1", rdzv_configs={"tls_ca": str(tmp_path / "none")})
