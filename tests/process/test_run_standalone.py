"""``rallypoint run`` of one node with a coordinator of its own: real processes, torch-free workers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster import Process, ProcessCluster
from support.processes import MARK_VARIABLE, is_alive, wait_until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def told(tmp_path: Path) -> Path:
    folder = tmp_path / "told"
    folder.mkdir()
    return folder


def run(cluster: ProcessCluster, *argv: str, **env: str) -> Process:
    return cluster.start("agent", "run", "--node-name", "node-a", *argv, TMPDIR=str(cluster.folder), **env)


def tell(cluster: ProcessCluster, told: Path, *flags: str, **env: str) -> Process:
    return run(cluster, *flags, cluster.worker("tell.py"), "--x", "y", TELL=str(told), **env)


def told_by(told: Path, rank: int, round_number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((told / f"{rank}.{round_number}.json").read_text())
    return found


def test_the_worker_sees_torchruns_environment(cluster: ProcessCluster, told: Path) -> None:
    agent = tell(cluster, told, "--standalone", "--rdzv-id", "job7", GRPC_VERBOSITY="info")
    assert agent.wait() == 0, agent.output
    seen = told_by(told, 0)
    assert seen["argv"] == ["--x", "y"]
    assert seen["executable"] == sys.executable
    env = seen["env"]
    assert env["MASTER_ADDR"] == "127.0.0.1"
    assert 0 < int(env["MASTER_PORT"]) < 65536
    expected = {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_NAME": "default",
        "TORCHELASTIC_RUN_ID": "job7",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT",
        "RALLYPOINT_ROUND": "0",
        "GRPC_VERBOSITY": "info",
    }
    assert {name: env.get(name) for name in expected} == expected
    assert env["RALLYPOINT_JOB_UID"]
    assert "GRPC_ENABLE_FORK_SUPPORT" not in env
    assert "OMP_NUM_THREADS" not in env
    assert "out of rank 0" in agent.out.read_text()
    assert "err of rank 0" in agent.err.read_text()


def test_two_workers(cluster: ProcessCluster, told: Path) -> None:
    assert tell(cluster, told, "--nproc-per-node", "2").wait() == 0
    envs = [told_by(told, rank)["env"] for rank in (0, 1)]
    assert [env["LOCAL_RANK"] for env in envs] == ["0", "1"]
    assert {env["WORLD_SIZE"] for env in envs} == {"2"}
    assert {env["OMP_NUM_THREADS"] for env in envs} == {"1"}
    assert len({env["MASTER_PORT"] for env in envs}) == 1


def test_the_root_cause_of_a_failure_is_told_first(cluster: ProcessCluster, told: Path) -> None:
    agent = tell(cluster, told, "--nproc-per-node", "2", RAISE_ON_RANK="1", LINGER_ON_RANK="0")
    assert agent.wait() == 1
    report = agent.err.read_text().partition("Root cause: ")[2].splitlines()
    assert re.fullmatch(r"rank 1 \(local rank 1\) on node-a, pid \d+, exit code 1", report[0])
    assert report[1] == "  ValueError: bad sample"
    assert "  Traceback (most recent call last):" in report
    assert report[-1] == "Collateral, stopped: rank 0 on node-a: SIGTERM"


def test_an_exit_code_alone_is_told_as_well(cluster: ProcessCluster, told: Path) -> None:
    agent = tell(cluster, told, EXIT_IN_ROUND="0:3")
    assert agent.wait() == 1, "the job's status, not the worker's"
    assert "exit code 3\n" in agent.err.read_text().partition("Root cause: ")[2]


def test_a_restart_begins_a_new_round_on_a_new_port(cluster: ProcessCluster, told: Path) -> None:
    agent = tell(cluster, told, "--max-restarts", "2", EXIT_IN_ROUND="0:1,1:1")
    assert agent.wait() == 0
    envs = [told_by(told, 0, round_number)["env"] for round_number in (0, 1, 2)]
    assert [env["TORCHELASTIC_RESTART_COUNT"] for env in envs] == ["0", "1", "2"]
    assert {env["TORCHELASTIC_MAX_RESTARTS"] for env in envs} == {"2"}
    assert len({env["MASTER_PORT"] for env in envs}) == 3
    assert "round 2: rank 0 of 1, restart 2 of 2" in agent.output


def test_a_fixed_port_serves_every_round(cluster: ProcessCluster, told: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    agent = tell(cluster, told, "--max-restarts", "1", "--master-port", port, EXIT_IN_ROUND="0:1")
    assert agent.wait() == 0
    assert [told_by(told, 0, number)["env"]["MASTER_PORT"] for number in (0, 1)] == [port, port]


def test_who_names_a_log_folder_has_files_and_lines(cluster: ProcessCluster, told: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    agent = tell(
        cluster,
        told,
        "--nproc-per-node",
        "2",
        "--log-dir",
        str(logs),
        "--max-restarts",
        "1",
        "--rdzv-id",
        "job7",
        EXIT_IN_ROUND="0:1",
    )
    assert agent.wait() == 0
    (root,) = logs.iterdir()
    assert root.name.startswith("job7_")
    written = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.log"))}
    assert written == {
        f"attempt_{round_number}/{rank}/std{stream}.log": f"{stream} of rank {rank}\n"
        for round_number in (0, 1)
        for rank in (0, 1)
        for stream in ("out", "err")
    }
    shown = sorted(agent.out.read_text().splitlines())
    assert shown == sorted(2 * ["[default0]:out of rank 0", "[default1]:out of rank 1"])
    assert agent.err.read_text().count("[default1]:err of rank 1\n") == 2


def test_redirected_output_is_in_files_only(cluster: ProcessCluster, told: Path, tmp_path: Path) -> None:
    agent = tell(cluster, told, "-r", "1", "--log-dir", str(tmp_path / "logs"))
    assert agent.wait() == 0
    assert agent.out.read_text() == ""
    assert "err of rank 0" in agent.err.read_text()
    (file,) = (tmp_path / "logs").rglob("stdout.log")
    assert file.read_text() == "out of rank 0\n"


def test_a_module(cluster: ProcessCluster) -> None:
    agent = run(cluster, "-m", "this")
    assert agent.wait() == 0
    assert agent.out.read_text().startswith("The Zen of Python")


def test_a_script_by_its_path(cluster: ProcessCluster, tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("import sys; print(__name__, __file__, sys.argv)")
    agent = run(cluster, "--run-path", str(script), "--x")
    assert agent.wait() == 0
    assert agent.out.read_text() == f"__main__ {script} {[str(script), '--x']}\n"


def test_workers_are_told_of_the_signals_and_of_their_virtual_rank(cluster: ProcessCluster) -> None:
    show = "echo $TORCHELASTIC_SIGNALS_TO_HANDLE $RANK $LOCAL_RANK $CUDA_VISIBLE_DEVICES"
    flags = ("--signals-to-handle", "SIGTERM,SIGUSR1", "--virtual-local-rank", "--nproc-per-node", "2")
    agent = run(cluster, *flags, "--no-python", "sh", "-c", show)
    assert agent.wait() == 0
    assert sorted(agent.out.read_text().splitlines()) == ["SIGTERM,SIGUSR1 0 0 0", "SIGTERM,SIGUSR1 1 0 1"]


@pytest.mark.parametrize(("level", "says"), [("INFO", True), ("ERROR", False), ("nonsense", True)])
def test_the_agent_says_as_much_as_loglevel_allows(cluster: ProcessCluster, level: str, says: bool) -> None:
    agent = run(cluster, "--no-python", "true", LOGLEVEL=level)
    assert agent.wait() == 0
    assert ("round 0: rank 0 of 1" in agent.output) is says


def test_another_interpreter(cluster: ProcessCluster) -> None:
    agent = run(cluster, "--python", "echo", cluster.worker("tell.py"), "--x")
    assert agent.wait() == 0
    assert agent.out.read_text() == f"-u {cluster.worker('tell.py')} --x\n"


def test_the_local_rank_in_an_argument(cluster: ProcessCluster) -> None:
    argument = "rank ${local_rank} $$ ${other}"
    agent = run(cluster, "--no-python", "--nproc-per-node", "2", "echo", argument)
    assert agent.wait() == 0
    shown = [f"rank {rank} $$ ${{other}}" for rank in (0, 1)]
    assert sorted(agent.out.read_text().splitlines()) == shown


def test_workers_that_cannot_be_bound_near_a_gpu_are_not_started(cluster: ProcessCluster) -> None:
    agent = run(cluster, "--numa-binding", "node", "--no-python", "echo", "started", CUDA_VISIBLE_DEVICES="")
    assert agent.wait() == 1
    [line] = agent.err.read_text().splitlines()
    assert line.endswith("cannot be bound to CPUs (--numa-binding): no NVIDIA GPU is visible on this node")
    assert agent.out.read_text() == ""


def test_a_program_that_does_not_exist(cluster: ProcessCluster) -> None:
    agent = run(cluster, "--no-python", "--nproc-per-node", "2", "/nowhere/program")
    assert agent.wait() == 1
    assert "cannot run '/nowhere/program': No such file or directory" in agent.err.read_text()


def test_what_a_worker_leaves_behind_ends_with_the_round(cluster: ProcessCluster) -> None:
    program = "sleep 1000 & setsid sleep 1000 & echo started"
    agent = run(cluster, "--no-python", "sh", "-c", program)
    assert agent.wait() == 0
    assert not cluster.pids("sleep")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def noting(cluster: ProcessCluster, notes: Path, *flags: str, **env: str) -> Process:
    """An agent whose worker notes its signals, once the worker runs."""
    worker = cluster.worker("note_signals.py")
    agent = run(cluster, *flags, worker, NOTES=str(notes), **env)
    wait_until(lambda: noted(notes) == ["ready"])
    return agent


def noted(notes: Path) -> list[str]:
    return notes.read_text().splitlines() if notes.exists() else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_is_the_exit_status(
    cluster: ProcessCluster, notes: Path, number: signal.Signals
) -> None:
    agent = noting(cluster, notes)
    agent.signal(number)
    assert agent.wait() == 128 + number
    assert noted(notes) == ["ready", number.name]
    assert "Traceback" not in agent.output


def test_ctrl_c_in_a_terminal_lets_the_coordinator_live_to_the_end(cluster: ProcessCluster, notes: Path) -> None:
    agent = noting(cluster, notes)
    os.killpg(agent.pid, signal.SIGINT)
    assert agent.wait() == 130
    assert noted(notes) == ["ready", "SIGINT"]
    assert "lost contact" not in agent.output


def test_a_second_signal_does_not_wait_for_a_stubborn_worker(cluster: ProcessCluster, notes: Path) -> None:
    agent = noting(cluster, notes, "--shutdown-timeout", "1h", STUBBORN="1")
    agent.signal(signal.SIGTERM)
    wait_until(lambda: noted(notes) == ["ready", "SIGTERM"])
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 143


def test_a_stubborn_worker_is_killed_after_its_time(cluster: ProcessCluster, notes: Path) -> None:
    agent = noting(cluster, notes, "--shutdown-timeout", "100ms", STUBBORN="1")
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 143


STUBBORN_BESIDE_ONE_THAT_FAILS = """
trap "" TERM
touch $NOTES.$RALLYPOINT_ROUND.$RANK
until test -e $NOTES.$RALLYPOINT_ROUND.$((1 - RANK)); do sleep 0.01; done
test $RANK = 0 && exit 3
while :; do sleep 0.1; done
"""


@pytest.mark.parametrize("restarts", [0, 1])
def test_so_is_one_beside_a_worker_that_failed(cluster: ProcessCluster, notes: Path, restarts: int) -> None:
    """Not after torch's 30 s: that is as long as is waited for the end."""
    flags = ["--nproc-per-node", "2", "--max-restarts", str(restarts), "--shutdown-timeout", "100ms", "--no-python"]
    agent = run(cluster, *flags, "sh", "-c", STUBBORN_BESIDE_ONE_THAT_FAILS, NOTES=str(notes))
    assert agent.wait(25) == 1
    assert f"restart {restarts} of {restarts}" in agent.output
    assert "stopped: rank 1 on node-a: SIGKILL" in agent.output


def test_nothing_survives_an_agent_that_is_killed(cluster: ProcessCluster, notes: Path) -> None:
    agent = noting(cluster, notes)
    agent.signal(signal.SIGKILL)
    assert agent.wait() == -signal.SIGKILL
    wait_until(lambda: not cluster.pids(""), message="something survived")


def test_a_job_survives_its_keeper(cluster: ProcessCluster, notes: Path) -> None:
    agent = noting(cluster, notes, "--max-restarts", "1")
    (keeper,) = cluster.pids("keeper/child.py")
    (coordinator,) = cluster.pids("rallypoint_coordinator")
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: noted(notes) == ["ready", "ready"])
    assert "the keeper died" in agent.output
    assert is_alive(coordinator)
    (another,) = cluster.pids("keeper/child.py")
    assert another != keeper
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 143


def test_a_signal_after_the_jobs_success_is_no_failure(cluster: ProcessCluster) -> None:
    """The job is decided; what is left is to wait for whoever reads the output, and nobody does."""
    program = ["run", "--standalone", "--tee", "1", "--no-python", "sh", "-c", "yes | head -c 200000"]
    env = {**os.environ, MARK_VARIABLE: cluster.mark, "TMPDIR": str(cluster.folder)}
    argv = [sys.executable, "-m", "rallypoint", *program]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as agent:
        wait_until(lambda: cluster.pids("keeper/child.py"))
        wait_until(lambda: not cluster.pids("keeper/child.py"))
        agent.terminate()
        assert agent.wait(30) == 0


def test_no_coordinator_is_exit_status_3(cluster: ProcessCluster, told: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    agent = tell(cluster, told, "--coordinator", address, "--connect-timeout", "200ms")
    assert agent.wait() == 3
    assert "no coordinator could be reached" in agent.output
    assert list(told.iterdir()) == []


def test_a_usage_error_is_one_line(cluster: ProcessCluster) -> None:
    agent = run(cluster, "nowhere.py")
    assert agent.wait() == 2
    assert agent.output == "rallypoint run: no such script: nowhere.py\n"


def test_what_the_coordinator_would_refuse_is_refused_by_the_flags_name(cluster: ProcessCluster, told: Path) -> None:
    agent = tell(cluster, told, "--lease-ttl", "5s")
    assert agent.wait() == 2
    assert agent.output.startswith("rallypoint run: --lease-ttl must be 8 s to")


def test_a_log_folder_that_cannot_be_made_is_a_usage_error(cluster: ProcessCluster, told: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    agent = tell(cluster, told, "--log-dir", str(tmp_path / "file" / "logs"))
    assert agent.wait() == 2
    assert "--log-dir" in agent.output
