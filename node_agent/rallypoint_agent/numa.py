"""Which CPUs a worker runs on so that it is near its GPU: torch's --numa-binding.

As in torch, the worker of local rank n is taken to use GPU n, and GPUs that no worker uses have their share too.
Pure: the machine is described by a :class:`Topology`, which ``numa_topology`` reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum

from rallypoint.values import dataclass

Cpus = frozenset[int]


class AffinityMode(StrEnum):
    """torch's names. The NUMA node is that of the worker's GPU."""

    NODE = "node"
    """All CPUs of the NUMA node."""
    SOCKET = "socket"
    """All CPUs of every NUMA node on its socket."""
    EXCLUSIVE = "exclusive"
    """A share of the node's physical cores, which no other GPU's worker has."""
    CORE_COMPLEX = "core-complex"
    """The CPUs of the node that share one last-level cache: another one for each GPU as long as there are enough."""


@dataclass(frozen=True)
class NumaOptions:
    """torch's. By default a worker that cannot be bound keeps the agent from starting any."""

    affinity_mode: AffinityMode
    should_fall_back_if_binding_fails: bool = False
    """Run such a worker where the agent may run, and say so."""


class NumaBindingError(Exception):
    """A worker cannot be bound; its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What a binding depends on.

    ``gpu_nodes``: the NUMA node of each GPU, by the index that workers know it by. ``node_cpus``: the CPUs of each NUMA
    node. ``usable``: those that the agent may use. By usable CPU, as far as the kernel tells: the number of its
    socket, and what stands for its physical core and for its last-level cache: the lowest CPU, usable or not, that
    has the same one.
    """

    gpu_nodes: tuple[int, ...]
    node_cpus: Mapping[int, Cpus]
    usable: Cpus
    sockets: Mapping[int, int]
    cores: Mapping[int, int]
    caches: Mapping[int, int]


def cpus_of(mode: AffinityMode, topology: Topology, local_rank: int) -> Cpus:
    """The CPUs of the worker of this local rank, at least one. Raises NumaBindingError."""
    if local_rank >= len(topology.gpu_nodes):
        raise NumaBindingError(f"local rank {local_rank} has no GPU of its own, {len(topology.gpu_nodes)} are visible")
    node = topology.gpu_nodes[local_rank]
    cpus = _usable(topology, node)
    if not cpus:
        raise NumaBindingError(f"this process may use no CPU of NUMA node {node}, which GPU {local_rank} belongs to")
    match mode:
        case AffinityMode.NODE:
            return cpus
        case AffinityMode.SOCKET:
            return _of_socket(topology, cpus)
        case AffinityMode.EXCLUSIVE:
            return _share_of_cores(topology, cpus, *_turn(topology, local_rank))
        case AffinityMode.CORE_COMPLEX:
            return _core_complex(topology, cpus, _turn(topology, local_rank)[0])


def _usable(topology: Topology, node: int) -> Cpus:
    if node not in topology.node_cpus:
        raise NumaBindingError(f"the CPUs of NUMA node {node} are not known")
    return topology.node_cpus[node] & topology.usable


def _turn(topology: Topology, local_rank: int) -> tuple[int, int]:
    """Which of the GPUs on its NUMA node this one is, and how many there are."""
    node = topology.gpu_nodes[local_rank]
    return topology.gpu_nodes[:local_rank].count(node), topology.gpu_nodes.count(node)


def _of_socket(topology: Topology, cpus: Cpus) -> Cpus:
    """A NUMA node belongs to the socket of its lowest CPU. One without usable CPUs, of memory say, adds nothing."""
    socket = _socket(topology, cpus)
    usable = [_usable(topology, node) for node in topology.node_cpus]
    return frozenset().union(*(found for found in usable if found and _socket(topology, found) == socket))


def _socket(topology: Topology, cpus: Cpus) -> int:
    return _told(topology.sockets, min(cpus), "socket")


def _share_of_cores(topology: Topology, cpus: Cpus, turn: int, gpus: int) -> Cpus:
    """An even share; of cores that are left over, the first GPUs have one more each."""
    cores = [group for _, group in sorted(_grouped(cpus, topology.cores, "physical core").items())]
    each, left_over = divmod(len(cores), gpus)
    if not each:
        raise NumaBindingError(f"{gpus} GPUs on one NUMA node have no physical core each: it has {len(cores)}")
    start = turn * each + min(turn, left_over)
    return frozenset().union(*cores[start : start + each + (turn < left_over)])


def _core_complex(topology: Topology, cpus: Cpus, turn: int) -> Cpus:
    """The larger ones first: some CPUs of a complex may be other people's."""
    groups = _grouped(cpus, topology.caches, "last-level cache")
    by_size = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return by_size[turn % len(by_size)][1]


def _grouped(cpus: Iterable[int], names: Mapping[int, int], what: str) -> dict[int, Cpus]:
    groups = defaultdict(set)
    for cpu in cpus:
        groups[_told(names, cpu, what)].add(cpu)
    return {name: frozenset(group) for name, group in groups.items()}


def _told(names: Mapping[int, int], cpu: int, what: str) -> int:
    if cpu not in names:
        raise NumaBindingError(f"the kernel does not tell the {what} of CPU {cpu}")
    return names[cpu]
