"""This machine as a NUMA binding sees it, and the CPUs that each worker is bound to."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from rallypoint_agent.accelerators import UnknownGpuError, visible_gpus
from rallypoint_agent.numa import AffinityMode, Cpus, NumaBindingError, Topology, cpus_of

logger = logging.getLogger(__name__)


def bindings(
    options: Any, local_world_size: int, environ: Mapping[str, str], root: Path = Path("/")
) -> dict[int, Cpus]:
    """The CPUs of each worker that is bound, by local rank.

    ``options`` are NumaOptions, ours or torch's, or None. Raises ValueError for anything else, NumaBindingError if a
    worker cannot be bound, unless the options say to go on: then that one is left out, and a warning says why.
    """
    if options is None:
        return {}
    mode = _mode(options)
    try:
        topology = read_topology(environ, root)
    except NumaBindingError as error:
        _go_on_or_raise(options, error)
        return {}
    found = {}
    for rank in range(local_world_size):
        try:
            found[rank] = cpus_of(mode, topology, rank)
        except NumaBindingError as error:
            _go_on_or_raise(options, error)
    return found


def _mode(options: Any) -> AffinityMode:
    try:
        return AffinityMode(options.affinity_mode.value)
    except (AttributeError, ValueError):
        raise ValueError(f"numa_options must be NumaOptions, with an AffinityMode, not {options!r}") from None


def _go_on_or_raise(options: Any, error: NumaBindingError) -> None:
    if not options.should_fall_back_if_binding_fails:
        raise error
    logger.warning("a worker is not bound to CPUs near its GPU: %s", error)


def read_topology(environ: Mapping[str, str], root: Path = Path("/"), usable: Cpus | None = None) -> Topology:
    """As /sys has it below ``root``. ``usable``: default, what this thread may use. Raises NumaBindingError."""
    cpus = frozenset(os.sched_getaffinity(0)) if usable is None else usable
    try:
        return _read(environ, root, cpus)
    except UnknownGpuError as error:
        raise NumaBindingError(str(error)) from None
    except (OSError, ValueError) as error:
        raise NumaBindingError(f"the topology of this machine cannot be read: {error}") from None


def _read(environ: Mapping[str, str], root: Path, cpus: Cpus) -> Topology:
    folder = root / "sys/devices/system"
    return Topology(
        gpu_nodes=_gpu_nodes(environ, root),
        node_cpus=_node_cpus(folder / "node"),
        usable=cpus,
        sockets=_by_cpu(folder, cpus, "topology/physical_package_id", int),
        cores=_by_cpu(folder, cpus, "topology/thread_siblings_list", lambda text: min(parse_cpus(text))),
        caches={cpu: min(sharing) for cpu in cpus if (sharing := _last_cache(folder / f"cpu/cpu{cpu}/cache"))},
    )


def _gpu_nodes(environ: Mapping[str, str], root: Path) -> tuple[int, ...]:
    gpus = visible_gpus(environ, root)
    if not gpus:
        raise NumaBindingError("no NVIDIA GPU is visible on this node")
    paths = [root / f"sys/bus/pci/devices/{gpu.address}/numa_node" for gpu in gpus]
    # -1: the machine tells no node, having one only as a rule. torch takes the first, too.
    return tuple(max(int(path.read_text()), 0) for path in paths)


def _node_cpus(folder: Path) -> dict[int, Cpus]:
    lists = {path.parent.name: path for path in folder.glob("node[0-9]*/cpulist")}
    return {int(name.removeprefix("node")): parse_cpus(path.read_text()) for name, path in lists.items()}


def _by_cpu(folder: Path, cpus: Collection[int], name: str, read: Callable[[str], int]) -> dict[int, int]:
    """What such a file of each CPU says, of those that have it."""
    paths = {cpu: folder / f"cpu/cpu{cpu}" / name for cpu in cpus}
    return {cpu: read(path.read_text()) for cpu, path in paths.items() if path.exists()}


def _last_cache(folder: Path) -> Cpus:
    """The CPUs that share the cache of the highest level that holds data; none if no cache is told of."""
    levels = {}
    for cache in folder.glob("index[0-9]*"):
        if (cache / "type").read_text().strip() in ("Unified", "Data"):
            levels[int((cache / "level").read_text())] = parse_cpus((cache / "shared_cpu_list").read_text())
    return levels[max(levels)] if levels else frozenset()


def parse_cpus(text: str) -> Cpus:
    """From the kernel's list, as in ``0-2,8``."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        cpus.update(range(int(low), int(high or low) + 1))
    return frozenset(cpus)
