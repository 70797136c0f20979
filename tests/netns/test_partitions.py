"""Agents on hosts of their own: what they do, and what is done without them, when they cannot reach the coordinator."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.fleet import HOSTS, NODES, SPARE, Fleet, now_ns, sleep_past_lease
from chaos.partitions import COORDINATOR, DIRECTIONS
from rallypoint.v1 import job_service_pb2
from support.cluster import ProcessCluster, wait_gone
from support.netns import Network, Way, both_ways
from support.processes import is_alive

VICTIM = "node-b"
OTHERS = tuple(node for node in NODES if node != VICTIM)


@contextmanager
def four_agents(folder: Path, *flags: str) -> Iterator[tuple[Fleet, Network]]:
    network = Network(HOSTS)
    with ProcessCluster(folder, network) as cluster:
        fleet = Fleet(cluster, *flags)
        fleet.start_agents(*NODES)
        yield fleet, network
        assert fleet.lives.check() == []


def from_and_to_everybody() -> list[Way]:
    return [way for node in NODES for way in both_ways(node, COORDINATOR)]


def state_of(fleet: Fleet, node: str) -> job_service_pb2.NodeState.ValueType:
    return fleet.nodes()[node].state


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_workers_of_a_partitioned_agent_are_gone_before_the_others_go_on(tmp_path: Path, direction: str) -> None:
    with four_agents(tmp_path) as (fleet, network):
        before = fleet.wait_healthy()
        with network.silence(*DIRECTIONS[direction](VICTIM)):
            workers = fleet.wait_complete(before.round + 1)
            assert not any(map(is_alive, before.families[VICTIM]))
            assert all(worker.strangers == [] for worker in workers), "what each saw when it began"
            others = tuple(node for node in before.nodes if node != VICTIM)
            assert tuple(worker.node for worker in workers if worker.local_rank == 0) == others
            assert state_of(fleet, VICTIM) == job_service_pb2.NODE_STATE_LOST
        after = fleet.wait_healthy()
        assert set(after.nodes) == set(NODES), "healed, it has joined again"
        assert after.restart_count == 0


def test_a_partitioned_agent_stands_by_if_its_place_is_taken(tmp_path: Path) -> None:
    with four_agents(tmp_path) as (fleet, network):
        fleet.wait_healthy()
        fleet.start_agents(SPARE)
        before = fleet.wait_healthy()
        with network.silence(*both_ways(VICTIM, COORDINATOR)):
            workers = fleet.wait_complete(before.round + 1)
            assert {worker.node for worker in workers} == {*OTHERS, SPARE}
        after = fleet.wait_healthy()
        assert after.round == before.round + 1
        assert state_of(fleet, VICTIM) == job_service_pb2.NODE_STATE_STANDBY


def test_a_brief_partition_costs_nothing_but_time(tmp_path: Path) -> None:
    with four_agents(tmp_path) as (fleet, network):
        before = fleet.wait_healthy()
        with network.silence(*both_ways(VICTIM, COORDINATOR)):
            pass
        after = fleet.wait_healthy()
        assert (after.pids, after.round) == (before.pids, before.round)


def test_a_host_without_a_link_counts_as_silent(tmp_path: Path) -> None:
    with four_agents(tmp_path) as (fleet, network):
        before = fleet.wait_healthy()
        with network.unplugged(VICTIM):
            fleet.wait_complete(before.round + 1)
            assert not any(map(is_alive, before.families[VICTIM]))
        assert set(fleet.wait_healthy().nodes) == set(NODES)


@pytest.mark.parametrize("verdict", ["blackhole", "unreachable"])
def test_a_coordinator_that_is_out_of_reach_may_be_forming_a_round_without_us(tmp_path: Path, verdict: str) -> None:
    """Also if a router says so: only the coordinator's own host can refuse."""
    with four_agents(tmp_path) as (fleet, network):
        before = fleet.wait_healthy()
        with network.silence(*from_and_to_everybody(), verdict=verdict):
            wait_gone(set().union(*before.families.values()))
        after = fleet.wait_healthy()
        assert after.round > before.round
        assert after.restart_count == 0


def test_a_refusal_holds_the_workers_past_their_lease(tmp_path: Path) -> None:
    with four_agents(tmp_path) as (fleet, _):
        before = fleet.wait_healthy()
        end_coordinator(fleet)
        sleep_past_lease(now_ns())
        assert all(map(is_alive, before.pids.values()))
        fleet.serve_again()
        after = fleet.wait_healthy()
        assert (after.pids, after.round, after.restart_count) == (before.pids, before.round, 0)


def test_a_refusal_holds_the_workers_no_longer_than_the_outage_that_the_job_allows(tmp_path: Path) -> None:
    with four_agents(tmp_path, "--coordinator-outage", "1s") as (fleet, _):
        before = fleet.wait_healthy()
        end_coordinator(fleet)
        wait_gone(set().union(*before.families.values()))
        fleet.serve_again()
        after = fleet.wait_healthy()
        assert after.round > before.round
        assert after.restart_count == 0


def test_a_refusal_on_the_far_side_of_a_partition_is_not_heard(tmp_path: Path) -> None:
    with four_agents(tmp_path) as (fleet, network):
        before = fleet.wait_healthy()
        with network.silence((COORDINATOR, VICTIM)):
            end_coordinator(fleet)
            wait_gone(before.families[VICTIM])
            assert all(is_alive(pid) for node in OTHERS for pid in before.families[node])
        fleet.serve_again()
        assert set(fleet.wait_healthy().nodes) == set(NODES)


def test_workers_meet_at_the_address_of_rank_0s_host(tmp_path: Path) -> None:
    with four_agents(tmp_path) as (fleet, network):
        before = fleet.wait_healthy()
        (endpoint,) = {worker.endpoint.rpartition(":")[0] for worker in fleet.lives.workers(before.round)}
        assert endpoint == network.address(before.nodes[0])


def end_coordinator(fleet: Fleet) -> None:
    """Its host stays, and refuses from now on."""
    fleet.coordinator.signal(signal.SIGKILL)
    fleet.coordinator.wait()
