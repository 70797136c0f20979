"""torch's NUMA bindings and ours on the same machines: each reads the files of one fake /sys."""

from __future__ import annotations

import inspect
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rallypoint_agent.numa import AffinityMode, NumaBindingError, NumaOptions, cpus_of
from rallypoint_agent.numa_topology import bindings, read_topology
from support.fake_machine import FakeMachine, pci_address

theirs = pytest.importorskip("torch.numa.binding")

MACHINES = {
    "one node": FakeMachine(cores=4, gpu_nodes=(0, 0)),
    "no node told": FakeMachine(cores=4, gpu_nodes=(-1, -1)),
    "two sockets": FakeMachine(sockets=2, cores=8, threads=2, gpu_nodes=(0, 0, 0, 0, 1, 1, 1, 1)),
    "four nodes a socket": FakeMachine(sockets=2, nodes=4, complexes=2, cores=3, threads=2, gpu_nodes=(3, 3, 1, 7, 5)),
    "cores left over": FakeMachine(sockets=2, complexes=3, cores=3, threads=2, gpu_nodes=(0, 1, 0, 1, 0, 0, 1)),
    "too few cores": FakeMachine(cores=3, gpu_nodes=(0, 0, 0, 0)),
    "more gpus than complexes": FakeMachine(complexes=2, cores=8, threads=2, gpu_nodes=(0, 0, 0, 0, 0)),
}


def torchs(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine, root: Path, usable: frozenset[int]) -> None:
    """Have torch's functions see this machine."""

    def properties(index: int) -> SimpleNamespace:
        domain, bus, device = pci_address(index).removesuffix(".0").split(":")
        return SimpleNamespace(pci_domain_id=int(domain, 16), pci_bus_id=int(bus, 16), pci_device_id=int(device, 16))

    def inside(path: str) -> Path:
        return root / path.removeprefix("/")

    cuda = SimpleNamespace(device_count=lambda: len(machine.gpu_nodes), get_device_properties=properties)
    its_os = SimpleNamespace(
        listdir=lambda path: os.listdir(inside(path)), path=os.path, sched_getaffinity=lambda thread: set(usable)
    )
    monkeypatch.setattr(theirs, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(theirs, "os", its_os)
    monkeypatch.setattr(theirs, "open", lambda path: inside(path).open(), raising=False)
    monkeypatch.setattr(theirs, "shutil", SimpleNamespace(which=lambda program: program))


def theirs_of(mode: str, rank: int) -> frozenset[int] | None:
    """None: torch binds no worker."""
    options = theirs.NumaOptions(theirs.AffinityMode(mode))
    try:
        return frozenset(theirs._get_validated_logical_cpus_to_bind_to(gpu_index=rank, numa_options=options))
    except (RuntimeError, ValueError, ZeroDivisionError):
        return None


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("mode", AffinityMode)
def test_workers_are_bound_where_torch_binds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: FakeMachine, mode: AffinityMode
) -> None:
    """Also where some of the CPUs are not for this process; ours may bind where torch cannot, never the reverse."""
    machine.write(tmp_path)
    generator = random.Random(str(machine))
    some = [frozenset(generator.sample(sorted(machine.cpus), len(machine.cpus) // k)) for k in (2, 3) for _ in range(4)]
    bound = 0
    for usable in (machine.cpus, *some):
        torchs(monkeypatch, machine, tmp_path, usable)
        topology = read_topology({}, tmp_path, usable)
        for rank in range(len(machine.gpu_nodes)):
            wanted = theirs_of(mode, rank)
            if wanted is None:
                # torch gives up on a socket for a node of another one that has no usable CPU.
                assert mode is AffinityMode.SOCKET or _refuses(mode, topology, rank)
                continue
            assert cpus_of(mode, topology, rank) == wanted
            bound += 1
    assert bound or (mode is AffinityMode.EXCLUSIVE and machine == MACHINES["too few cores"])


def _refuses(mode: AffinityMode, topology: Any, rank: int) -> bool:
    try:
        return not cpus_of(mode, topology, rank)
    except NumaBindingError:
        return True


def test_the_options_are_torchs() -> None:
    assert {mode.name: mode.value for mode in AffinityMode} == {mode.name: mode.value for mode in theirs.AffinityMode}
    wanted = [(field.name, field.default) for field in inspect.signature(theirs.NumaOptions).parameters.values()]
    assert [(field.name, field.default) for field in inspect.signature(NumaOptions).parameters.values()] == wanted


def test_torchs_options_are_understood(tmp_path: Path) -> None:
    root = FakeMachine().write(tmp_path)
    options = theirs.NumaOptions(theirs.AffinityMode.EXCLUSIVE)
    assert bindings(options, 1, {}, root) == bindings(NumaOptions(AffinityMode.EXCLUSIVE), 1, {}, root)
