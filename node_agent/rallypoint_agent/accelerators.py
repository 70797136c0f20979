"""The accelerators of this machine that workers can use, found without torch."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"

_LEVEL_ZERO = "libze_loader.so.1"
_GPUS_ONLY = 1
_DEVICE_PROPERTIES = 3
_PROPERTIES_BYTES = 1024
"""Far more than ze_device_properties_t has."""
_TYPE_OFFSET, _FLAGS_OFFSET = 16, 28
_GPU, _INTEGRATED = 1, 1


def gpu_count(environ: Mapping[str, str] = os.environ, devices: str = "/dev") -> int:
    """NVIDIA GPUs that workers of this node can use: the driver's device files, if not hidden."""
    present = [name for name in os.listdir(devices) if re.fullmatch(r"nvidia[0-9]+", name)]
    visible = environ.get(DEVICES_VARIABLE)
    if not present or visible is None:
        return len(present)
    # As the driver reads it: what follows the first that names no device is not seen.
    valid = [_may_name_one(entry, len(present)) for entry in _entries(visible)]
    return valid.index(False) if False in valid else len(valid)


def _may_name_one(entry: str, count: int) -> bool:
    if re.fullmatch(r"[0-9]{1,9}", entry):
        return int(entry) < count
    return re.fullmatch(r"(GPU|MIG)-\S+", entry) is not None


class Gpu(NamedTuple):
    """An NVIDIA GPU. ``address`` is its place on the PCI bus, as /sys has it."""

    address: str
    uuid: str
    model: str


class UnknownGpuError(Exception):
    """Which GPU a worker will know by its number cannot be told; the text says why."""


def visible_gpus(environ: Mapping[str, str], root: Path = Path("/")) -> list[Gpu]:
    """NVIDIA GPUs by the number that workers know them by. Raises UnknownGpuError.

    As the driver tells of them, without a library of its. CUDA numbers equal ones by their addresses.
    """
    present = _present_gpus(root)
    if len({gpu.model for gpu in present}) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise UnknownGpuError("CUDA sorts GPUs of several models by speed: set CUDA_DEVICE_ORDER=PCI_BUS_ID")
    visible = environ.get(DEVICES_VARIABLE)
    if visible is None:
        return present
    gpus = []
    for entry in _entries(visible):
        if (gpu := _named(entry, present)) is None:
            break  # As the driver reads it: neither this nor what follows is seen.
        gpus.append(gpu)
    return gpus


def _named(entry: str, present: list[Gpu]) -> Gpu | None:
    if entry.startswith("MIG-"):
        raise UnknownGpuError(f"{DEVICES_VARIABLE} has {entry}, and which GPU that is a part of is not known")
    if re.fullmatch(r"[0-9]{1,9}", entry):
        return present[int(entry)] if int(entry) < len(present) else None
    meant = [gpu for gpu in present if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
    return meant[0] if len(meant) == 1 else None


def _entries(visible: str) -> list[str]:
    return [entry.strip() for entry in visible.split(",")]


def _present_gpus(root: Path) -> list[Gpu]:
    """In a container the driver may tell of all GPUs: those without a device file are others'."""
    folder = root / "proc/driver/nvidia/gpus"
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        told = dict(line.split(":", 1) for line in (path / "information").read_text().splitlines() if ":" in line)
        values = {name: value.strip() for name, value in told.items()}
        if (root / f"dev/nvidia{values.get('Device Minor')}").exists():
            found.append(Gpu(path.name.lower(), values.get("GPU UUID", ""), values.get("Model", "")))
    return found


def xpu_count(library: Any = None) -> int:
    """Intel GPUs as Level Zero shows them, and so torch: integrated ones count if there are no others.

    Level Zero heeds ZE_AFFINITY_MASK and ZE_FLAT_DEVICE_HIERARCHY. Without its loader there are none.
    """
    try:
        ze = library or ctypes.CDLL(_LEVEL_ZERO)
    except OSError:
        return 0
    if ze.zeInit(_GPUS_ONLY):
        return 0
    are_integrated = [
        bool(flags & _INTEGRATED)
        for driver in _handles(ze.zeDriverGet)
        for device in _handles(ze.zeDeviceGet, driver)
        for kind, flags in [_kind_and_flags(ze, device)]
        if kind == _GPU
    ]
    return are_integrated.count(False) or len(are_integrated)


def _handles(get: Any, *parent: ctypes.c_void_p) -> list[ctypes.c_void_p]:
    """What such a function gives: it is asked for their number first."""
    count = ctypes.c_uint32(0)
    if get(*parent, ctypes.byref(count), None) or not count.value:
        return []
    handles = (ctypes.c_void_p * count.value)()
    if get(*parent, ctypes.byref(count), handles):
        return []
    return [ctypes.c_void_p(handle) for handle in handles[: count.value]]


def _kind_and_flags(ze: Any, device: ctypes.c_void_p) -> tuple[int, int]:
    properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
    ctypes.c_uint32.from_buffer(properties).value = _DEVICE_PROPERTIES
    if ze.zeDeviceGetProperties(device, properties):
        return 0, 0
    kind = ctypes.c_uint32.from_buffer(properties, _TYPE_OFFSET).value
    return kind, ctypes.c_uint32.from_buffer(properties, _FLAGS_OFFSET).value
