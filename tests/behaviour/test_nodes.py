"""Launching from Python on several nodes: ranks, drift in success and in failure, elasticity, signals."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from behaviour.conftest import Nodes
from rallypoint.v1 import types_pb2
from support.cluster import ProcessCluster
from support.processes import wait_until


def appears(folder: Path, name: str) -> None:
    wait_until((folder / name).exists, 60, f"no {name}")


def tell(path: Path, word: str) -> None:
    """At once as a whole: somebody waits for it."""
    part = path.with_suffix(".part")
    part.write_text(word)
    part.rename(path)


def has_succeeded_somewhere(cluster: ProcessCluster) -> bool:
    return any(worker.state == types_pb2.WORKER_STATE_SUCCEEDED for worker in cluster.workers("j"))


def returned(outcome: dict[str, Any]) -> dict[int, Any]:
    return {int(rank): value for rank, value in outcome["returned"].items()}


def test_two_agents_on_one_host_return_what_their_own_workers_did(nodes: Nodes) -> None:
    agents = [nodes.launch(name, "multiplied", "${local_rank}", 10, nproc_per_node=2) for name in ("a", "b")]
    outcomes = [returned(agent.outcome()) for agent in agents]
    assert sorted(map(sorted, outcomes)) == [[0, 1], [2, 3]]
    assert outcomes[0] | outcomes[1] == {0: [0, 0], 1: [1, 10], 2: [0, 20], 3: [1, 30]}


def test_nodes_that_differ_in_role_and_size(nodes: Nodes) -> None:
    trainer = nodes.launch("a", "place", role="trainer", nproc_per_node=2, rdzv_configs={"node_rank": 0})
    reader = nodes.launch("b", "place", role="reader", nproc_per_node=1, rdzv_configs={"rank": 1})
    places = returned(trainer.outcome()) | returned(reader.outcome())
    shown = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE")
    assert {rank: [place[name] for name in shown] for rank, place in places.items()} == {
        0: ["3", "2", "0", "trainer", "0", "2"],
        1: ["3", "2", "0", "trainer", "1", "2"],
        2: ["3", "1", "1", "reader", "0", "1"],
    }


def test_who_succeeds_first_waits_for_the_others(nodes: Nodes, cluster: ProcessCluster, tmp_path: Path) -> None:
    """torch's exit barrier: agents end together, however much the ends of their workers drift."""
    first = nodes.launch("a", "end_as_told", str(tmp_path), "a")
    second = nodes.launch("b", "end_as_told", str(tmp_path), "b")
    appears(tmp_path, "a-runs-0")
    tell(tmp_path / "a", "done")
    wait_until(lambda: has_succeeded_somewhere(cluster), 30, "no node has succeeded")
    assert first.process.popen.poll() is None
    tell(tmp_path / "b", "too")
    values = returned(first.outcome()) | returned(second.outcome())
    assert sorted(values.values()) == ["done", "too"]


def test_a_failure_after_anothers_success_fails_both(nodes: Nodes, cluster: ProcessCluster, tmp_path: Path) -> None:
    first = nodes.launch("a", "end_as_told", str(tmp_path), "a")
    second = nodes.launch("b", "end_as_told", str(tmp_path), "b")
    appears(tmp_path, "a-runs-0")
    tell(tmp_path / "a", "done")
    wait_until(lambda: has_succeeded_somewhere(cluster), 30, "no node has succeeded")
    tell(tmp_path / "b", "fail")
    outcomes = [first.outcome(), second.outcome()]
    assert outcomes[0]["first"] == outcomes[1]["first"]
    for outcome in outcomes:
        assert outcome["failed"][str(outcome["first"])].startswith("RuntimeError: b was told to fail")


def test_a_failure_on_one_node_restarts_both(nodes: Nodes, tmp_path: Path) -> None:
    agents = [nodes.launch(name, "fail_until", 1, str(tmp_path), max_restarts=1) for name in ("a", "b")]
    values = returned(agents[0].outcome()) | returned(agents[1].outcome())
    assert values == {0: 1, 1: 1}


def test_a_node_that_comes_later_is_taken_in(nodes: Nodes, tmp_path: Path) -> None:
    first = nodes.launch("a", "linger", str(tmp_path), "a", min_nodes=1)
    appears(tmp_path, "a-in-1")
    second = nodes.launch("b", "linger", str(tmp_path), "b", min_nodes=1)
    appears(tmp_path, "a-in-2")
    for name in ("a-2", "b-2"):
        (tmp_path / name).touch()
    assert returned(first.outcome()) | returned(second.outcome()) == {0: 2, 1: 2}


def test_the_others_go_on_without_a_node_that_leaves(nodes: Nodes, tmp_path: Path) -> None:
    stays = nodes.launch("a", "linger", str(tmp_path), "a", min_nodes=1, rdzv_configs={"last_call_timeout": "1m"})
    leaves = nodes.launch("b", "linger", str(tmp_path), "b", min_nodes=1, rdzv_configs={"last_call_timeout": "1m"})
    appears(tmp_path, "b-in-2")
    leaves.process.signal(signal.SIGTERM)
    assert leaves.outcome() == {"signal": "SIGTERM"}
    appears(tmp_path, "a-in-1")
    (tmp_path / "a-1").touch()
    assert returned(stays.outcome()) == {0: 1}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_a_signal_is_the_workers_as_well_and_is_raised(nodes: Nodes, tmp_path: Path, name: str) -> None:
    node = nodes.launch("a", "note_signal", str(tmp_path), min_nodes=1, max_nodes=1)
    appears(tmp_path, "ready")
    node.process.signal(signal.Signals[name])
    assert node.outcome() == {"signal": name}
    assert {path.name for path in tmp_path.glob("SIG*")} == {name}


def test_the_signals_to_handle_are_the_configs(nodes: Nodes, tmp_path: Path) -> None:
    node = nodes.launch("a", "note_signal", str(tmp_path), min_nodes=1, max_nodes=1, signals_to_handle="SIGUSR1")
    appears(tmp_path, "ready")
    node.process.signal(signal.SIGUSR1)
    assert node.outcome() == {"signal": "SIGUSR1"}
    assert (tmp_path / "SIGUSR1").exists()


def test_a_job_that_never_has_its_nodes_is_no_workers_failure(nodes: Nodes, tmp_path: Path) -> None:
    node = nodes.launch("a", "linger", str(tmp_path), "a", rdzv_configs={"join_timeout": "200ms"})
    outcome = node.outcome()
    assert outcome["error"] == "DECIDED"
    assert "node" in outcome["message"]


def test_a_node_that_is_drained_has_nothing_to_return(nodes: Nodes, cluster: ProcessCluster, tmp_path: Path) -> None:
    stays = nodes.launch("a", "linger", str(tmp_path), "a", min_nodes=1, rdzv_configs={"last_call_timeout": "1m"})
    goes = {"node_name": "drained", "last_call_timeout": "1m"}
    drained = nodes.launch("b", "linger", str(tmp_path), "b", min_nodes=1, rdzv_configs=goes)
    appears(tmp_path, "b-in-2")
    cluster.drain("j", "drained")
    assert drained.outcome() == {"returned": {}}
    appears(tmp_path, "a-in-1")
    (tmp_path / "a-1").touch()
    assert returned(stays.outcome()) == {0: 1}
