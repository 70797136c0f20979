from __future__ import annotations

import dataclasses

import pytest

from rallypoint_agent.numa import AffinityMode, Cpus, NumaBindingError, Topology, cpus_of

TWO_NODES = Topology(
    gpu_nodes=(0, 0, 1),
    node_cpus={0: frozenset({0, 1, 2, 6, 7, 8}), 1: frozenset({3, 4, 5, 9, 10, 11})},
    usable=frozenset(range(12)),
    sockets=dict.fromkeys(range(12), 0),
    cores={cpu: cpu % 6 for cpu in range(12)},
    caches={cpu: 0 if cpu % 6 < 2 else 2 for cpu in range(12)},
)
"""One socket of six cores with two threads each; the cores 0 and 1 share a cache, 2 alone has one on node 0."""


def machine(**changes: object) -> Topology:
    return dataclasses.replace(TWO_NODES, **changes)  # type: ignore[arg-type]


def of_all(mode: AffinityMode, topology: Topology) -> list[Cpus]:
    return [cpus_of(mode, topology, rank) for rank in range(len(topology.gpu_nodes))]


def test_node_is_all_of_the_gpus_node() -> None:
    assert of_all(AffinityMode.NODE, TWO_NODES) == [{0, 1, 2, 6, 7, 8}, {0, 1, 2, 6, 7, 8}, {3, 4, 5, 9, 10, 11}]


def test_socket_is_all_nodes_of_the_gpus_socket() -> None:
    assert of_all(AffinityMode.SOCKET, TWO_NODES) == [frozenset(range(12))] * 3
    two_sockets = machine(sockets={cpu: cpu % 6 // 3 for cpu in range(12)})
    assert of_all(AffinityMode.SOCKET, two_sockets) == of_all(AffinityMode.NODE, TWO_NODES)


def test_a_node_of_memory_alone_belongs_to_no_socket() -> None:
    with_memory = machine(node_cpus={**TWO_NODES.node_cpus, 2: frozenset()})
    assert cpus_of(AffinityMode.SOCKET, with_memory, 0) == frozenset(range(12))


def test_exclusive_divides_the_cores_and_gives_the_first_gpus_what_is_left_over() -> None:
    assert of_all(AffinityMode.EXCLUSIVE, TWO_NODES) == [{0, 1, 6, 7}, {2, 8}, {3, 4, 5, 9, 10, 11}]


def test_exclusive_needs_a_core_for_each_gpu() -> None:
    with pytest.raises(NumaBindingError, match="4 GPUs on one NUMA node have no physical core each: it has 3"):
        cpus_of(AffinityMode.EXCLUSIVE, machine(gpu_nodes=(0, 0, 0, 0)), 0)


def test_a_core_complex_is_one_cache_and_the_larger_come_first() -> None:
    assert of_all(AffinityMode.CORE_COMPLEX, TWO_NODES)[:2] == [{0, 1, 6, 7}, {2, 8}]
    one_is_used_by_others = machine(usable=frozenset(range(1, 6)) | {8})
    assert of_all(AffinityMode.CORE_COMPLEX, one_is_used_by_others)[:2] == [{2, 8}, {1}]


def test_with_more_gpus_than_core_complexes_they_are_shared() -> None:
    assert cpus_of(AffinityMode.CORE_COMPLEX, machine(gpu_nodes=(0, 0, 0)), 2) == {0, 1, 6, 7}


@pytest.mark.parametrize("mode", AffinityMode)
def test_only_what_this_process_may_use(mode: AffinityMode) -> None:
    usable = frozenset({1, 2, 3, 8, 10})
    assert all(cpus and cpus <= usable for cpus in of_all(mode, machine(usable=usable)))


@pytest.mark.parametrize("mode", AffinityMode)
@pytest.mark.parametrize(
    ("topology", "rank", "told"),
    [
        (TWO_NODES, 3, "local rank 3 has no GPU of its own, 3 are visible"),
        (machine(usable=frozenset({0})), 2, "this process may use no CPU of NUMA node 1, which GPU 2 belongs to"),
        (machine(gpu_nodes=(7,)), 0, "the CPUs of NUMA node 7 are not known"),
    ],
)
def test_what_no_worker_can_be_bound_by(mode: AffinityMode, topology: Topology, rank: int, told: str) -> None:
    with pytest.raises(NumaBindingError, match=told):
        cpus_of(mode, topology, rank)


@pytest.mark.parametrize(
    ("mode", "unknown", "told"),
    [
        (AffinityMode.SOCKET, "sockets", "the kernel does not tell the socket of CPU 0"),
        (AffinityMode.EXCLUSIVE, "cores", "the kernel does not tell the physical core of CPU"),
        (AffinityMode.CORE_COMPLEX, "caches", "the kernel does not tell the last-level cache of CPU"),
    ],
)
def test_only_the_mode_that_needs_it_misses_what_the_kernel_does_not_tell(
    mode: AffinityMode, unknown: str, told: str
) -> None:
    topology = machine(**{unknown: {}})
    with pytest.raises(NumaBindingError, match=told):
        cpus_of(mode, topology, 0)
    for other in set(AffinityMode) - {mode}:
        assert cpus_of(other, topology, 0) == cpus_of(other, TWO_NODES, 0)
