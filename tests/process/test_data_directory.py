"""A data directory that is not as it should be: a refusal of one line at the start, later one that stands by."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from support.cluster import LISTENING, Process, ProcessCluster
from support.coordinator_command import COMMAND, health, refusal, run_to_its_end
from support.processes import wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def serving(cluster: ProcessCluster, data: Path) -> Process:
    """A coordinator on the directory, for which nothing is to be decided."""
    return cluster.coordinator("--data-dir", str(data))


def kill(coordinator: Process) -> None:
    coordinator.signal(signal.SIGKILL)
    coordinator.wait()


def wait_for_health(cluster: ProcessCluster, status: int) -> None:
    wait_until(lambda: health(cluster.address) == status, 30, f"its health does not become {status}")


# --- at the start


def test_a_damaged_journal_is_refused(cluster: ProcessCluster, data: Path) -> None:
    kill(cluster.coordinator("--data-dir", str(data)))
    journal = data / "journal.db"
    for name in ("journal.db-wal", "journal.db-shm"):
        (data / name).unlink(missing_ok=True)
    journal.write_bytes(b"not what it was")
    done = run_to_its_end("--data-dir", str(data))
    assert refusal(done).startswith(f"the journal {journal} is damaged: file is not a database")
    journal.rename(journal.with_suffix(".damaged"))
    cluster.coordinator("--data-dir", str(data))


def test_a_directory_that_cannot_be_used_is_refused_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a file\nof two lines"
    path.touch()
    said = refusal(run_to_its_end("--data-dir", str(path)))
    assert said.startswith(f"the data directory {tmp_path}/a file of two lines cannot be used: there is something of")


def without_the_file(journal: Path) -> None:
    journal.unlink()


def with_an_empty_file(journal: Path) -> None:
    journal.write_bytes(b"")


def without_the_log(journal: Path) -> None:
    journal.with_name("journal.db-wal").unlink()


def without_a_table(journal: Path) -> None:
    with sqlite3.connect(journal) as db:
        db.execute("DROP TABLE record")
    db.close()


def of_another_program(journal: Path) -> None:
    for each in journal.parent.glob("journal.db*"):
        each.unlink()
    with sqlite3.connect(journal) as db:
        db.execute("CREATE TABLE cake (flavour TEXT)")
    db.close()


def a_directory(journal: Path) -> None:
    journal.rename(journal.with_name("aside"))
    journal.mkdir()


def a_link_to_nowhere(journal: Path) -> None:
    journal.unlink()
    journal.symlink_to("nowhere")


def a_pipe(journal: Path) -> None:
    journal.unlink()
    os.mkfifo(journal)


@pytest.mark.parametrize(
    ("harm", "what", "advice"),
    [
        (without_the_file, "the file is missing, and journal.db-wal of an earlier one is there", "restore a backup"),
        (with_an_empty_file, "the file is empty, and journal.db-wal of an earlier one is there", "restore a backup"),
        (without_the_log, "journal.db-wal, with the newest decisions, is missing", "restore a backup"),
        (without_a_table, "its table record is missing", "restore a backup"),
        (of_another_program, "is no journal of Rallypoint", "choose another --data-dir"),
        (a_directory, "is a directory, and a journal is a plain file", "move it away"),
        (a_link_to_nowhere, "is a symbolic link, and a journal is a plain file", "move it away"),
        (a_pipe, "is a pipe, and a journal is a plain file", "move it away"),
    ],
)
def test_a_journal_that_is_none_is_refused(
    serving: Process, data: Path, harm: Callable[[Path], None], what: str, advice: str
) -> None:
    kill(serving)
    harm(data / "journal.db")
    before = sorted((each.name, each.lstat().st_size) for each in data.iterdir() if each.name != "lock")
    said = refusal(run_to_its_end("--data-dir", str(data)))
    assert str(data / "journal.db") in said
    assert what in said
    assert advice in said
    after = sorted((each.name, each.lstat().st_size) for each in data.iterdir() if each.name != "lock")
    assert [name for name, _ in after] == [name for name, _ in before]


def as_nobody_special() -> tuple[str, ...]:
    """What keeps root from writing to what it may not write to."""
    if os.geteuid():
        return ()
    caps = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is missing")
@pytest.mark.parametrize(
    ("name", "mode", "what"),
    [
        ("journal.db", 0o400, r"the journal cannot be opened: .*journal.db: Permission denied; the coordinator needs"),
        ("lock", 0o400, r"cannot be used: Permission denied; --data-dir takes a writable directory"),
        (
            ".",
            0o500,
            r"the journal cannot be opened: .*journal.db: .*SQLITE_READONLY_DIRECTORY.*that it may write to",
        ),
    ],
)
def test_what_may_not_be_written_is_refused(serving: Process, data: Path, name: str, mode: int, what: str) -> None:
    serving.signal(signal.SIGTERM)
    serving.wait()
    (data / name).chmod(mode)
    done = run_to_its_end("--data-dir", str(data), command=(*as_nobody_special(), *COMMAND))
    (data / name).chmod(0o700)
    assert re.search(what, refusal(done)), done.stderr


def test_a_disk_that_cannot_sync_is_refused(data: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "FAIL_NOW": "1"}
    argv = (
        sys.executable,
        "-m",
        "support.failing_sync",
        "coordinator",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        str(data),
    )
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=env)
    assert "nput/output error" in refusal(done) or "disk I/O error" in refusal(done)


# --- while it runs


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "journal.db-shm"])
def test_a_file_that_is_gone_stops_the_service_until_it_is_back(
    cluster: ProcessCluster, serving: Process, data: Path, name: str
) -> None:
    (data / name).rename(data / "aside")
    serving.wait_for(rf"{name} is gone: it was removed, moved or replaced .*; serving nobody until")
    wait_for_health(cluster, NOT_SERVING)
    with pytest.raises(grpc.RpcError, match=f"{name} is gone"):
        cluster.restart("job")
    (data / "aside").rename(data / name)
    wait_for_health(cluster, SERVING)
    serving.signal(signal.SIGTERM)
    assert serving.wait() == 0


def test_a_directory_that_is_deleted_stops_the_service(cluster: ProcessCluster, serving: Process, data: Path) -> None:
    shutil.rmtree(data)
    serving.wait_for(rf"the data directory {data} was removed or changed under this coordinator")
    wait_for_health(cluster, NOT_SERVING)
    serving.signal(signal.SIGTERM)
    assert serving.wait() == 0
    assert "Traceback" not in serving.output
    assert not data.exists(), "nothing is made in its place"


def test_a_lock_that_is_deleted_is_taken_again(cluster: ProcessCluster, serving: Process, data: Path) -> None:
    (data / "lock").unlink()
    wait_until(lambda: (data / "lock").exists() and "listening" in (data / "lock").read_text())
    assert f"(pid {serving.pid}, listening on {cluster.address})" in refusal(run_to_its_end("--data-dir", str(data)))
    assert health(cluster.address) == SERVING


def test_who_loses_the_lock_to_another_ends(cluster: ProcessCluster, serving: Process, data: Path) -> None:
    serving.signal(signal.SIGSTOP)  # else it takes the lock again
    (data / "lock").unlink()
    other = cluster.coordinator("--data-dir", str(data))
    serving.signal(signal.SIGCONT)
    assert serving.wait() == 1
    assert f"in use by another coordinator (pid {other.pid}, listening on {cluster.address})" in serving.output
    assert "Traceback" not in serving.output
    assert health(cluster.address) == SERVING


def test_a_disk_that_cannot_sync_stops_the_service(cluster: ProcessCluster, data: Path, tmp_path: Path) -> None:
    argv = ["coordinator", "--listen", "127.0.0.1:0", "--data-dir", str(data)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    coordinator = Process("coordinator", [sys.executable, "-m", "support.failing_sync", *argv], tmp_path, env)
    cluster.processes.append(coordinator)
    cluster.address = coordinator.wait_for(LISTENING.pattern).group(1)
    coordinator.signal(signal.SIGUSR1)
    cluster.agent("node-a", "--rdzv-id", "job", "--no-python", "true")
    coordinator.wait_for(r"disk I/O error \(SQLITE_IOERR_FSYNC\); serving nobody until")
    wait_for_health(cluster, NOT_SERVING)
    coordinator.signal(signal.SIGTERM)
    assert coordinator.wait() == 0
    assert "Traceback" not in coordinator.output
