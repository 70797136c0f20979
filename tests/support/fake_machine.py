"""A machine's topology as the kernel and the NVIDIA driver tell of it, written below a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FakeMachine:
    """Each number is per one of the level above: ``nodes`` are the NUMA nodes of one socket.

    CPUs are numbered as Linux does: first one of each core, then the second ones. ``gpu_nodes``: what /sys says of each
    GPU, in the order of their addresses.
    """

    sockets: int = 1
    nodes: int = 1
    complexes: int = 1
    cores: int = 2
    threads: int = 1
    gpu_nodes: tuple[int, ...] = (0,)

    @property
    def core_count(self) -> int:
        return self.sockets * self.nodes * self.complexes * self.cores

    @property
    def cpus(self) -> frozenset[int]:
        return frozenset(range(self.core_count * self.threads))

    def write(self, root: Path) -> Path:
        for cpu in self.cpus:
            self._write_cpu(root / f"sys/devices/system/cpu/cpu{cpu}", cpu % self.core_count)
        for node in range(self.sockets * self.nodes):
            of_node = (core for core in range(self.core_count) if self._node(core) == node)
            write(root / f"sys/devices/system/node/node{node}/cpulist", self._listed(of_node))
        write(root / "sys/devices/system/node/possible", f"0-{self.sockets * self.nodes - 1}")
        for index, node in enumerate(self.gpu_nodes):
            write(root / f"sys/bus/pci/devices/{pci_address(index)}/numa_node", str(node))
            add_gpu(root, index)
        return root

    def _write_cpu(self, folder: Path, core: int) -> None:
        write(folder / "topology/physical_package_id", str(self._node(core) // self.nodes))
        write(folder / "topology/thread_siblings_list", self._listed([core]))
        start = core - core % self.cores
        write_cache(folder, 0, "Data", 1, self._listed([core]))
        write_cache(folder, 1, "Instruction", 4, self._listed(range(self.core_count)))
        write_cache(folder, 2, "Unified", 3, self._listed(range(start, start + self.cores)))

    def _node(self, core: int) -> int:
        return core // (self.cores * self.complexes)

    def _listed(self, cores: Iterable[int]) -> str:
        chosen = list(cores)
        return ",".join(str(core + thread * self.core_count) for thread in range(self.threads) for core in chosen)


def write_cache(cpu: Path, index: int, kind: str, level: int, cpus: str) -> None:
    folder = cpu / f"cache/index{index}"
    write(folder / "type", kind)
    write(folder / "level", str(level))
    write(folder / "shared_cpu_list", cpus)


def add_gpu(root: Path, index: int, model: str = "NVIDIA H100 80GB HBM3", minor: int | None = None) -> None:
    minor = index if minor is None else minor
    told = f"Model: \t\t {model}\nIRQ:   \t\t 61\nGPU UUID: \t {gpu_uuid(index)}\nBus Type: \t PCIe\n"
    told += f"Bus Location: \t {pci_address(index)}\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
    write(root / f"proc/driver/nvidia/gpus/{pci_address(index)}/information", told)
    write(root / f"dev/nvidia{minor}", "")


def pci_address(index: int) -> str:
    return f"0000:{0x19 + index:02x}:00.0"


def gpu_uuid(index: int) -> str:
    return f"GPU-{index:x}f2e1c3a-5a12-3b1f-a89e-1f6d24f0a7e6"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
