from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from rallypoint_agent import node_name
from rallypoint_agent.node_name import claim_node_name


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "host")
    monkeypatch.setattr(node_name, "_KEEPER_WAIT_S", 0.0)


def test_agents_of_one_job_are_numbered(tmp_path: Path) -> None:
    names = [claim_node_name("job", folder=tmp_path) for _ in range(3)]
    assert [name.name for name in names] == ["host", "host-2", "host-3"]
    other = claim_node_name("another-job", folder=tmp_path)
    assert other.name == "host"
    for name in (*names, other):
        name.close()


def test_a_name_given_back_is_free_and_leaves_no_file(tmp_path: Path) -> None:
    first, second = claim_node_name("job", folder=tmp_path), claim_node_name("job", folder=tmp_path)
    first.close()
    first.close()
    again = claim_node_name("job", folder=tmp_path)
    assert again.name == "host"
    again.close()
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_a_name_left_to_the_keeper_is_taken_until_that_has_ended(tmp_path: Path) -> None:
    first = claim_node_name("job", folder=tmp_path)
    assert first.fd is not None
    keepers_own = os.dup(first.fd)
    first.leave_to_keeper()
    first.close()
    second = claim_node_name("job", folder=tmp_path)
    assert second.name == "host-2"
    os.close(keepers_own)
    third = claim_node_name("job", folder=tmp_path)
    assert third.name == "host"
    second.close()
    third.close()


def test_an_explicit_name_is_taken_as_it_is(tmp_path: Path) -> None:
    name = claim_node_name("job", explicit="node 7", folder=tmp_path)
    assert name.name == "node 7"
    twice = claim_node_name("job", explicit="node 7", folder=tmp_path)
    assert (twice.name, twice.fd) == ("node 7", None), "the coordinator is to refuse it"
    twice.close()
    name.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("explicit", [None, "node 7"])
def test_the_record_of_an_agent_that_was_killed_is_its_successors(tmp_path: Path, explicit: str | None) -> None:
    first = claim_node_name("job", explicit, folder=tmp_path)
    assert first.left == ""
    first.note("the record")
    first.note("a record")
    _end_of_agent(first)
    second = claim_node_name("job", explicit, folder=tmp_path)
    assert (second.name, second.left) == (first.name, "a record")
    second.keep_record()
    third = claim_node_name("job", explicit, folder=tmp_path)
    assert third.left == "a record", "the second one could not settle it"
    third.close()
    fourth = claim_node_name("job", explicit, folder=tmp_path)
    assert fourth.left == ""
    fourth.close()


def test_the_record_of_another_nodes_agent_is_not_ours(tmp_path: Path) -> None:
    first = claim_node_name("job", "node-a", folder=tmp_path)
    first.note("a record")
    _end_of_agent(first)
    for job, node in (("job", "node-b"), ("another-job", "node-a")):
        other = claim_node_name(job, node, folder=tmp_path)
        assert other.left == ""
        other.close()


def test_a_strange_host_name_is_made_legal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my_höst/" + "x" * 300)
    name = claim_node_name("job", folder=tmp_path)
    assert name.name.startswith("my_h-st-xx")
    assert len(name.name) <= 253
    name.close()


AGENT = """
import subprocess, sys
from pathlib import Path
from rallypoint_agent.node_name import claim_node_name

name = claim_node_name("job", folder=Path(sys.argv[1]))
keeper = subprocess.Popen(["sleep", "60"], pass_fds=[name.fd])
print(keeper.pid, flush=True)
sys.stdin.read()
"""


def test_the_keeper_holds_the_name_after_the_agent(tmp_path: Path) -> None:
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with agent:
        assert agent.stdout
        keeper = int(agent.stdout.readline())
        agent.kill()
    second = claim_node_name("job", folder=tmp_path)
    assert second.name == "host-2"
    second.close()
    os.kill(keeper, signal.SIGKILL)


def test_a_new_agent_waits_for_the_keeper_of_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_name, "_KEEPER_WAIT_S", 5.0)
    last = claim_node_name("job", folder=tmp_path)
    assert last.fd is not None
    keepers_fd = os.dup(last.fd)
    _end_of_agent(last)
    timer = threading.Timer(0.05, os.close, [keepers_fd])
    timer.start()
    again = claim_node_name("job", folder=tmp_path)
    timer.join()
    assert again.name == last.name
    again.close()


def _end_of_agent(name: node_name.NodeName) -> None:
    """As the kernel ends it: its descriptors close, its files stay."""
    assert name._locks
    for lock in name._locks:
        os.close(lock.fd)


def test_without_a_folder_the_host_name_has_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = claim_node_name("job", folder=tmp_path / "missing")
    assert (name.name, name.fd) == ("host", None)
    assert "cannot lock a node name" in caplog.text


def test_the_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    name = claim_node_name("job")
    [folder] = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    name.close()
    folder.chmod(0o777)
    strangers = claim_node_name("job")
    assert (strangers.name, strangers.fd) == ("host", None)


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / f"rallypoint-{os.getuid()}").symlink_to(elsewhere)
    assert claim_node_name("job").fd is None
    assert list(elsewhere.iterdir()) == []


def test_a_cleaner_of_old_files_is_kept_out(tmp_path: Path) -> None:
    name = claim_node_name("job", folder=tmp_path)
    cleaner = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    name.close()
    fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert claim_node_name("job", folder=tmp_path).name == "host"
    os.close(cleaner)
