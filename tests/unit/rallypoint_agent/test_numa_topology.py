from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from rallypoint_agent.numa import AffinityMode, NumaBindingError, NumaOptions, Topology
from rallypoint_agent.numa_topology import bindings, parse_cpus, read_topology
from support.fake_machine import FakeMachine, add_gpu, write, write_cache

SERVER = FakeMachine(sockets=2, complexes=2, cores=2, threads=2, gpu_nodes=(0, 1))
OPTIONS = NumaOptions(AffinityMode.NODE)
OR_ELSE_UNBOUND = NumaOptions(AffinityMode.NODE, should_fall_back_if_binding_fails=True)


def read(machine: FakeMachine, root: Path) -> Topology:
    return read_topology({}, machine.write(root), machine.cpus)


def test_everything_is_read(tmp_path: Path) -> None:
    assert read(SERVER, tmp_path) == Topology(
        gpu_nodes=(0, 1),
        node_cpus={0: frozenset({0, 1, 2, 3, 8, 9, 10, 11}), 1: frozenset({4, 5, 6, 7, 12, 13, 14, 15})},
        usable=SERVER.cpus,
        sockets={cpu: cpu % 8 // 4 for cpu in range(16)},
        cores={cpu: cpu % 8 for cpu in range(16)},
        caches={cpu: cpu % 8 // 2 * 2 for cpu in range(16)},
    )


def test_only_what_may_be_used_is_looked_at(tmp_path: Path) -> None:
    usable = frozenset({1, 9})
    topology = read_topology({}, SERVER.write(tmp_path), usable)
    assert topology.usable == topology.sockets.keys() == topology.cores.keys() == topology.caches.keys() == usable
    assert topology.cores == {1: 1, 9: 1}


def test_by_default_that_is_this_threads_affinity(tmp_path: Path) -> None:
    assert read_topology({}, SERVER.write(tmp_path)).usable == os.sched_getaffinity(0)


def test_the_gpus_are_those_that_the_workers_see(tmp_path: Path) -> None:
    root = SERVER.write(tmp_path)
    assert read_topology({"CUDA_VISIBLE_DEVICES": "1,0"}, root, SERVER.cpus).gpu_nodes == (1, 0)


def test_a_machine_that_tells_no_node_has_one(tmp_path: Path) -> None:
    assert read(FakeMachine(gpu_nodes=(-1, 0)), tmp_path).gpu_nodes == (0, 0)


def test_a_cache_of_instructions_is_none(tmp_path: Path) -> None:
    machine = FakeMachine(cores=1)
    write_cache(machine.write(tmp_path) / "sys/devices/system/cpu/cpu0", 3, "Instruction", 9, "0-63")
    assert read_topology({}, tmp_path, machine.cpus).caches == {0: 0}


def test_what_the_kernel_does_not_tell_is_left_out(tmp_path: Path) -> None:
    add_gpu(tmp_path, 0)
    write(tmp_path / "sys/bus/pci/devices/0000:19:00.0/numa_node", "0")
    topology = read_topology({}, tmp_path, frozenset({0}))
    assert (topology.node_cpus, topology.sockets, topology.cores, topology.caches) == ({}, {}, {}, {})


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-2,4,6-7\n", {0, 1, 2, 4, 6, 7}), ("3\n", {3}), ("\n", set()), ("0-1", {0, 1})]
)
def test_lists_of_cpus(text: str, cpus: set[int]) -> None:
    assert parse_cpus(text) == cpus


def test_without_a_gpu_there_is_nothing_to_be_near_to(tmp_path: Path) -> None:
    with pytest.raises(NumaBindingError, match="no NVIDIA GPU is visible on this node"):
        bindings(OPTIONS, 1, {}, tmp_path)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    add_gpu(tmp_path, 0)
    with pytest.raises(NumaBindingError, match=r"the topology of this machine cannot be read: .*19:00\.0/numa_node"):
        read_topology({}, tmp_path)
    write(tmp_path / "sys/bus/pci/devices/0000:19:00.0/numa_node", "none")
    with pytest.raises(NumaBindingError, match="the topology of this machine cannot be read: invalid literal"):
        read_topology({}, tmp_path)


def test_gpus_that_cannot_be_told_apart_are_told(tmp_path: Path) -> None:
    with pytest.raises(NumaBindingError, match="CUDA_VISIBLE_DEVICES has MIG-1"):
        read_topology({"CUDA_VISIBLE_DEVICES": "MIG-1"}, FakeMachine().write(tmp_path))


def test_each_worker_has_cpus(tmp_path: Path) -> None:
    machine = FakeMachine(cores=2, gpu_nodes=(0, 0))
    usable = frozenset(os.sched_getaffinity(0))
    assert bindings(OPTIONS, 2, {}, machine.write(tmp_path)) == dict.fromkeys((0, 1), machine.cpus & usable)


def test_a_worker_that_cannot_be_bound_is_an_error_unless_the_options_say_to_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = FakeMachine().write(tmp_path)
    with pytest.raises(NumaBindingError, match="local rank 1 has no GPU"):
        bindings(OPTIONS, 2, {}, root)
    with caplog.at_level(logging.WARNING):
        assert bindings(OR_ELSE_UNBOUND, 2, {}, root).keys() == {0}
    assert caplog.messages == [
        "a worker is not bound to CPUs near its GPU: local rank 1 has no GPU of its own, 1 are visible"
    ]


def test_so_is_a_machine_without_gpus(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert bindings(OR_ELSE_UNBOUND, 2, {}, tmp_path) == {}
    assert len(caplog.messages) == 1


def test_no_options_bind_nothing(tmp_path: Path) -> None:
    assert bindings(None, 2, {}, tmp_path) == {}


@pytest.mark.parametrize("options", ["node", SimpleNamespace(affinity_mode=SimpleNamespace(value="die"))])
def test_what_are_no_options_is_refused(options: object) -> None:
    with pytest.raises(ValueError, match="numa_options must be NumaOptions"):
        bindings(options, 1, {})
