from __future__ import annotations

from pathlib import Path

import pytest

from rallypoint.model import Endpoint, StoreHost
from rallypoint.security.client import NO_SECURITY, ClientSecurity
from rallypoint_agent.logs import Std
from rallypoint_agent.meeting import Hosting
from rallypoint_agent.numa import AffinityMode
from rallypoint_agent.options import RunOptions, UsageError, parse
from support.certificates import Authority

SCRIPT = __file__


def options(line: str = "", **environ: str) -> RunOptions:
    return parse([*line.split(), SCRIPT], environ)


def refusal(line: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(line.replace("SCRIPT", SCRIPT).split(), environ)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_defaults_are_torchruns() -> None:
    parsed = options()
    assert parsed.coordinators == ()
    assert (parsed.job_spec.min_nodes, parsed.job_spec.max_nodes) == (1, 1)
    assert parsed.job_spec.max_restarts == 0
    assert parsed.nproc_per_node == 1
    assert parsed.role == "default"
    assert parsed.monitor_interval == 0.1
    assert (parsed.redirects, parsed.tee, parsed.log_dir) == (Std.NONE, Std.NONE, None)
    assert (parsed.node_rank, parsed.master_port, parsed.local_addr) == (None, None, None)
    assert not parsed.module
    assert not parsed.no_python


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("--nproc-per-node 4", "nproc_per_node", 4),
        ("--nproc_per_node=4", "nproc_per_node", 4),
        ("--rdzv-id train-7", "job", "train-7"),
        ("--role trainer", "role", "trainer"),
        ("--node-rank 3", "node_rank", 3),
        ("--node-rank 2147483647", "node_rank", 2**31 - 1),
        ("--node-name a", "node_name", "a"),
        ("--local-addr 10.0.0.1", "local_addr", "10.0.0.1"),
        ("--master_port 29500", "master_port", 29500),
        ("--master-addr m", "master_addr", "m"),
        ("--port-range 29500-29599", "port_range", range(29500, 29600)),
        ("--port-range 29500-29500", "port_range", range(29500, 29501)),
        ("--rdzv-conf is_host=1,timeout=900", "ignored_conf", ("timeout", "is_host")),
        ("--signals-to-handle SIGTERM,SIGUSR1", "signals_to_handle", "SIGTERM,SIGUSR1"),
        ("--numa-binding core-complex", "numa_binding", AffinityMode.CORE_COMPLEX),
        ("--virtual-local-rank", "virtual_local_rank", True),
        ("--run-path", "run_path", True),
        ("--log-dir logs", "log_dir", "logs"),
        ("-r 3", "redirects", Std.ALL),
        ("--nproc-per-node 13 -t 0:1,12:2", "tee", {0: Std.OUT, 12: Std.ERR}),
        ("--local-ranks-filter 0,12", "local_ranks_filter", {0, 12}),
        ("--local_ranks_filter=", "local_ranks_filter", set()),
        ("--duplicate-stdout-filters loss,acc", "duplicate_stdout_filters", ("loss", "acc")),
        ("--duplicate-stderr-filters a,,b,c,", "duplicate_stderr_filters", ("a,b", "c")),
        ("--logs-specs mine", "logs_specs", "mine"),
        ("--event-log-handler console", "event_log_handler", "console"),
        ("--metric-handler console", "metric_handler", "console"),
        ("--monitor-interval 5", "monitor_interval", 5.0),
        ("--connect-timeout 2m", "connect_timeout_ms", 120_000),
        ("-m", "module", True),
        ("--no_python", "no_python", True),
    ],
)
def test_a_flag_has_its_value(line: str, attribute: str, value: object) -> None:
    assert getattr(options(line), attribute) == value


@pytest.mark.parametrize(
    ("line", "redirects", "tee"),
    [
        ("--log-dir logs", Std.NONE, Std.ALL),
        ("--log-dir logs --redirects 1", Std.OUT, Std.NONE),
        ("--log-dir logs --tee 0", Std.NONE, Std.NONE),
        ("--log-dir /dev/null", Std.NONE, Std.NONE),
        ("", Std.NONE, Std.NONE),
    ],
)
def test_who_names_a_log_folder_and_no_streams_wants_all(line: str, redirects: Std, tee: Std) -> None:
    parsed = options(line)
    assert (parsed.redirects, parsed.tee) == (redirects, tee)


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("--max-restarts 3", "max_restarts", 3),
        ("--lease-ttl 1m", "lease_ttl_ms", 60_000),
        ("--coordinator-outage 0", "coordinator_outage_ms", 0),
        ("--join-timeout 90", "join_timeout_ms", 90_000),
        ("--rdzv-conf join_timeout=90", "join_timeout_ms", 90_000),
        ("--rdzv-conf join_timeout=90,last_call_timeout=5s", "last_call_timeout_ms", 5_000),
        ("--rdzv-conf join_timeout=90 --join-timeout 60", "join_timeout_ms", 60_000),
        ("--rdzv_conf store=agent", "store_host", StoreHost.AGENT),
        ("--rdzv-conf store=worker", "store_host", StoreHost.WORKER),
        ("--last-call-timeout 500ms", "last_call_timeout_ms", 500),
        ("--exit-barrier-timeout 1h", "exit_barrier_timeout_ms", 3_600_000),
        ("--shutdown-timeout 1.5s", "shutdown_timeout_ms", 1_500),
    ],
)
def test_a_policy_is_part_of_the_job_spec(line: str, attribute: str, value: object) -> None:
    assert getattr(options(line).job_spec, attribute) == value


def test_several_nodes() -> None:
    parsed = options("--nnodes 2:4 --coordinator c:1 --rdzv-id j")
    assert (parsed.job_spec.min_nodes, parsed.job_spec.max_nodes) == (2, 4)
    assert parsed.job == "j"


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("c:1", [Endpoint("c", 1)]),
        ("c", [Endpoint("c", 29400)]),
        ("c:1,10.0.0.1:2", [Endpoint("c", 1), Endpoint("10.0.0.1", 2)]),
        ("[::1]:7", [Endpoint("::1", 7)]),
        ("[fe80::1%eth0]", [Endpoint("fe80::1%eth0", 29400)]),
    ],
)
@pytest.mark.parametrize("flag", ["--coordinator", "--rdzv-endpoint", "--rdzv_endpoint"])
def test_the_coordinators(flag: str, text: str, endpoints: list[Endpoint]) -> None:
    assert options(f"{flag} {text}").coordinators == tuple(endpoints)


def test_one_node_without_a_coordinator_has_its_own_and_a_name_of_its_own() -> None:
    assert options().coordinators == ()
    assert options().job != options().job


def test_standalone_goes_before_the_environments_coordinator() -> None:
    assert options("--standalone", RALLYPOINT_COORDINATOR="c:1").coordinators == ()


def test_all_behind_the_script_is_the_scripts() -> None:
    parsed = parse(["--role", "r", SCRIPT, "--role", "x", "--", "-m", "--nnodes=0"], {})
    assert parsed.role == "r"
    assert parsed.script == SCRIPT
    assert parsed.script_args == ("--role", "x", "--", "-m", "--nnodes=0")


@pytest.mark.parametrize(
    ("environ", "attribute", "value"),
    [
        ({"PET_NPROC_PER_NODE": "3"}, "nproc_per_node", 3),
        ({"PET_STANDALONE": "1"}, "coordinators", ()),
        ({"PET_MODULE": "1"}, "module", True),
        ({"PET_MODULE": "0"}, "module", False),
        ({"PET_RDZV_ID": ""}, "node_rank", None),
        ({"PET_RDZV_ENDPOINT": "c:1"}, "coordinators", (Endpoint("c", 1),)),
        ({"RALLYPOINT_COORDINATOR": "c:1"}, "coordinators", (Endpoint("c", 1),)),
        ({"PET_COORDINATOR": "c:1"}, "coordinators", (Endpoint("c", 1),)),
        ({"PYTHON_EXEC": "/bin/sh"}, "python", "/bin/sh"),
    ],
)
def test_what_is_not_given_comes_from_the_environment(environ: dict[str, str], attribute: str, value: object) -> None:
    assert getattr(options(**environ), attribute) == value


def test_what_is_given_goes_before_the_environment() -> None:
    assert options("--role a", PET_ROLE="b").role == "a"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "no script"),
        ("--nnodes 2", "no script"),
        ("--frob SCRIPT", "--frob"),
        ("nowhere.py", "nowhere.py"),
        ("--nnodes 4:2 SCRIPT", "--nnodes 4:2: the minimum"),
        ("--nnodes 0 SCRIPT", "--nnodes 0"),
        ("--nnodes two SCRIPT", "--nnodes two"),
        ("--nnodes 2 --rdzv-id j SCRIPT", "--coordinator"),
        ("--nnodes 1:2 --coordinator c:1 SCRIPT", "--rdzv-id"),
        ("--nnodes 2 --standalone SCRIPT", "--standalone"),
        ("--lease-ttl 5x SCRIPT", "--lease-ttl 5x"),
        ("--lease-ttl -5 SCRIPT", "--lease-ttl"),
        ("--join-timeout 99999999999999h SCRIPT", "--join-timeout 99999999999999h: it must be at most a year"),
        ("--monitor-interval 0 SCRIPT", "--monitor-interval 0"),
        ("--monitor-interval 99999999999999h SCRIPT", "--monitor-interval 99999999999999h: it must be at most"),
        ("--monitor-interval 61m SCRIPT", "--monitor-interval 61m: it must be at most 1h"),
        ("--connect-timeout 0 SCRIPT", "--connect-timeout 0: it must be more than 0 s"),
        ("--node-rank 99999999999999 SCRIPT", "--node-rank 99999999999999: it must be 0 to 2,147,483,647"),
        ("--node-rank -1 SCRIPT", "--node-rank"),
        ("--max-restarts \u0663 SCRIPT", "--max-restarts"),
        ("--coordinator : SCRIPT", "--coordinator :"),
        ("--coordinator c:0 SCRIPT", "1 to 65535"),
        ("--coordinator c:x SCRIPT", "--coordinator c:x"),
        ("--coordinator ::1:5 SCRIPT", "brackets"),
        ("--master-port 70000 SCRIPT", "1 to 65535"),
        ("--nproc-per-node 0 SCRIPT", "--nproc-per-node 0"),
        ("--nproc-per-node \u0664 SCRIPT", "--nproc-per-node \u0664: it must be a number"),
        ("--role \udcff SCRIPT", "--role"),
        ("--max-restarts=-1 SCRIPT", "--max-restarts -1"),
        ("-r 4 SCRIPT", "--redirects 4"),
        ("--tee 0:1, SCRIPT", "--tee 0:1,"),
        ("--redirects 0:1,0:2 SCRIPT", "--redirects 0:1,0:2: it must name a local rank only once"),
        ("--redirects 0:1,1:2 SCRIPT", "--redirects: there is no local rank 1, --nproc-per-node is 1"),
        ("--nproc-per-node 2 --tee 2:1 SCRIPT", "--tee: there is no local rank 2"),
        ("--local-ranks-filter 0,x SCRIPT", "--local-ranks-filter 0,x: it must be a list of local ranks"),
        ("--duplicate-stdout-filters x --log-dir /dev/null SCRIPT", "--duplicate-stdout-filters needs files"),
        ("--port-range 29500 SCRIPT", "--port-range 29500: it must be LOW-HIGH, as in 29500-29599"),
        ("--port-range 29501-29500 SCRIPT", "--port-range 29501-29500: the first port is above the last"),
        ("--port-range 0-9 SCRIPT", "a port must be 1 to 65535"),
        ("--port-range 1-2 --master-port 1 SCRIPT", "--master-port and --port-range exclude each other"),
        ("--rdzv-conf store=me SCRIPT", "--rdzv-conf store=me: store must be worker or agent, not me"),
        ("--rdzv-conf join_timeout=long SCRIPT", "--rdzv-conf join_timeout long: it must be a number"),
        ("-m --no-python SCRIPT", "--module and --no-python exclude each other"),
        ("-m --run-path SCRIPT", "--module and --run-path exclude each other"),
        ("--rdzv-backend etcd-v2 SCRIPT", "--rdzv-backend etcd-v2: there is no etcd here: give --rdzv-endpoint"),
        ("--rdzv-backend zeus SCRIPT", "--rdzv-backend zeus: it must be one of c10d, static, rallypoint"),
        ("--start-method thread SCRIPT", "--start-method thread: it must be one of spawn"),
        ("--signals-to-handle SIGTERM,SIGKILL SCRIPT", "SIGKILL cannot be handled"),
        ("--numa-binding die SCRIPT", "--numa-binding die: it must be one of node, socket, exclusive, core-complex"),
        ("--use-env SCRIPT", "unrecognized arguments: --use-env"),
        ("--python /nowhere/python SCRIPT", "/nowhere/python"),
    ],
)
def test_nonsense_is_refused_in_one_line_that_names_it(line: str, told: str) -> None:
    assert told in refusal(line)


@pytest.mark.parametrize(
    ("line", "environ", "milliseconds"),
    [
        ("", {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "4"}, 4_000),
        ("", {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "4", "PET_SHUTDOWN_TIMEOUT": "5"}, 5_000),
        ("--shutdown-timeout 6", {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "4", "PET_SHUTDOWN_TIMEOUT": "5"}, 6_000),
    ],
)
def test_torchs_own_variable_for_the_shutdown_timeout_counts_last(
    line: str, environ: dict[str, str], milliseconds: int
) -> None:
    assert options(line, **environ).job_spec.shutdown_timeout_ms == milliseconds


def test_nonsense_of_the_environment_is_refused_by_its_variables_name() -> None:
    assert "TORCH_ELASTIC_SHUTDOWN_TIMEOUT soon" in refusal("SCRIPT", TORCH_ELASTIC_SHUTDOWN_TIMEOUT="soon")
    assert "PET_MAX_RESTARTS many" in refusal("SCRIPT", PET_MAX_RESTARTS="many")
    assert "PET_STANDALONE yes" in refusal("SCRIPT", PET_STANDALONE="yes")


def test_each_virtual_local_rank_needs_a_device() -> None:
    told = refusal("--virtual-local-rank --nproc-per-node 3 SCRIPT", CUDA_VISIBLE_DEVICES="4,5")
    assert told == "--virtual-local-rank: 3 workers, but CUDA_VISIBLE_DEVICES is 4,5"
    assert options("--virtual-local-rank --nproc-per-node 2", CUDA_VISIBLE_DEVICES="4,5").virtual_local_rank


def test_a_module_or_a_program_need_not_be_a_file() -> None:
    assert parse(["-m", "package.train"], {}).script == "package.train"
    assert parse(["--no-python", "nvidia-smi"], {}).script == "nvidia-smi"


def test_a_folder_is_a_script_if_python_can_run_it(tmp_path: Path) -> None:
    assert "no script" in refusal(str(tmp_path))
    (tmp_path / "__main__.py").touch()
    assert parse([str(tmp_path)], {}).script == str(tmp_path)


@pytest.mark.parametrize("flags", [[], ["-m"], ["--no-python"]])
def test_an_empty_name_is_no_script(flags: list[str]) -> None:
    with pytest.raises(UsageError, match="name is empty"):
        parse([*flags, ""], {})


def test_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "--nproc-per-node" in shown
    assert "--nproc_per_node" not in shown


def test_how_we_show_who_we_are(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    pair, token_file = ca.issue(), tmp_path / "token"
    token_file.write_text("rpt_secret")
    given = ClientSecurity(str(token_file), str(ca.cert), str(pair.cert), str(pair.key))
    flags = " ".join(f"--{name.replace('_', '-')} {path}" for name, path in given._asdict().items())
    assert options(f"--coordinator c:1 {flags}").security == given
    variables = {f"RALLYPOINT_{name.upper()}": path for name, path in given._asdict().items()}
    assert options("--coordinator c:1", **variables).security == given
    assert options(**variables).security == NO_SECURITY, "a coordinator of our own asks for nothing"
    assert options("--coordinator c:1 --standalone", **variables).security == NO_SECURITY


def test_a_token_goes_to_another_machine_in_plain_text_only_if_that_is_meant(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("rpt_secret")
    shown = f"--token-file {token_file}"
    assert options(f"--coordinator localhost:1 {shown}").security.token_file == str(token_file)
    assert options(f"--coordinator c:1 {shown} --insecure").security.token_file == str(token_file)
    with pytest.raises(UsageError, match="plain text") as caught:
        options(f"--coordinator c:1 {shown}")
    assert "rpt_secret" not in str(caught.value)


def test_what_cannot_be_read_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        options(f"--coordinator c:1 --tls-ca {tmp_path}/none")
    with pytest.raises(UsageError, match="--tls-cert and --tls-key go together"):
        options(f"--coordinator c:1 --tls-cert {tmp_path}/none")


def test_where_tls_is_asked_for_no_coordinator_is_started(tmp_path: Path) -> None:
    """What an agent starts speaks none."""
    line = "--rdzv-backend c10d --rdzv-endpoint localhost:1 --nnodes 2"
    assert options(line).hosting is Hosting.IF_NAMED
    assert options(f"{line} --tls-ca {Authority(tmp_path).cert}").hosting is Hosting.NEVER
