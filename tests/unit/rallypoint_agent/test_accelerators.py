from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from rallypoint_agent.accelerators import UnknownGpuError, gpu_count, visible_gpus, xpu_count
from support.fake_machine import add_gpu, gpu_uuid, pci_address


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 2),
        ("0,1", 2),
        ("1", 1),
        ("", 0),
        ("-1", 0),
        ("0,-1,1", 1),
        ("0,2,1", 1),
        ("GPU-8f2e,MIG-1a", 2),
        ("none", 0),
    ],
)
def test_gpus_are_counted_as_the_driver_shows_them(tmp_path: Path, visible: str | None, count: int) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert gpu_count(environ(visible), str(tmp_path)) == count


def environ(visible: str | None) -> dict[str, str]:
    return {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}


def test_without_a_driver_there_is_no_gpu(tmp_path: Path) -> None:
    assert gpu_count({"CUDA_VISIBLE_DEVICES": "0,1"}, str(tmp_path)) == 0
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}, tmp_path) == []


@pytest.fixture
def three_gpus(tmp_path: Path) -> Path:
    """The numbers of the device files go the other way than the addresses."""
    for index in range(3):
        add_gpu(tmp_path, index, minor=2 - index)
    return tmp_path


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        (" 1 ", [1]),
        (f"{gpu_uuid(1)},0", [1, 0]),
        ("GPU-2f2e,1", [2, 1]),
        ("GPU-9,1", []),
        ("GPU-", []),
        ("0,3,1", [0]),
        ("0,-1,1", [0]),
        ("0," + "9" * 5000, [0]),
        ("", []),
    ],
)
def test_gpus_have_the_numbers_that_cuda_gives_them(three_gpus: Path, visible: str | None, numbers: list[int]) -> None:
    gpus = visible_gpus(environ(visible), three_gpus)
    assert [gpu.address for gpu in gpus] == [pci_address(number) for number in numbers]


def test_a_gpu_without_a_device_file_is_another_containers(three_gpus: Path) -> None:
    (three_gpus / "dev/nvidia1").unlink()
    assert [gpu.uuid for gpu in visible_gpus({}, three_gpus)] == [gpu_uuid(0), gpu_uuid(2)]


def test_gpus_of_several_models_need_an_order_that_can_be_known(three_gpus: Path) -> None:
    add_gpu(three_gpus, 3, model="NVIDIA T4")
    with pytest.raises(UnknownGpuError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        visible_gpus({}, three_gpus)
    assert len(visible_gpus({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, three_gpus)) == 4


def test_a_part_of_a_gpu_is_not_known(three_gpus: Path) -> None:
    with pytest.raises(UnknownGpuError, match="CUDA_VISIBLE_DEVICES has MIG-1a, and which GPU"):
        visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-1a"}, three_gpus)


_GPU, _FPGA = 1, 3
_INTEGRATED, _ECC = 1, 4


class LevelZero:
    """The loader: its devices by driver, each a kind and flags."""

    def __init__(self, *drivers: list[tuple[int, int]], fails: str = "") -> None:
        self._drivers = drivers
        self._fails = fails

    def _result(self, name: str) -> int:
        return 0x78000001 if name == self._fails else 0

    def zeInit(self, flags: int) -> int:
        assert flags == 1
        return self._result("zeInit")

    def zeDriverGet(self, count: Any, drivers: Any) -> int:
        self._list(count, drivers, [100 * (number + 1) for number in range(len(self._drivers))])
        return self._result("zeDriverGet")

    def zeDeviceGet(self, driver: ctypes.c_void_p, count: Any, devices: Any) -> int:
        assert driver.value is not None
        self._list(count, devices, [driver.value + n for n in range(len(self._drivers[driver.value // 100 - 1]))])
        return self._result("zeDeviceGet")

    def zeDeviceGetProperties(self, device: ctypes.c_void_p, properties: Any) -> int:
        assert device.value is not None
        fields = ctypes.cast(properties, ctypes.POINTER(ctypes.c_uint32))
        assert fields[0] == 3
        fields[4], fields[7] = self._drivers[device.value // 100 - 1][device.value % 100]
        return self._result("zeDeviceGetProperties")

    @staticmethod
    def _list(count: Any, handles: Any, values: list[int]) -> None:
        if handles is not None:
            assert count._obj.value == len(values)
            handles[:] = values
        count._obj.value = len(values)


CARD, BUILT_IN = (_GPU, _ECC), (_GPU, _INTEGRATED | _ECC)


@pytest.mark.parametrize(
    ("drivers", "count"),
    [
        ([[CARD, CARD]], 2),
        ([[CARD], [CARD, CARD]], 3),
        ([[BUILT_IN, CARD]], 1),
        ([[BUILT_IN]], 1),
        ([[(_FPGA, 0)], [CARD]], 1),
        ([[]], 0),
        ([], 0),
    ],
)
def test_intel_gpus_are_counted_as_torch_does(drivers: list[list[tuple[int, int]]], count: int) -> None:
    assert xpu_count(LevelZero(*drivers)) == count


@pytest.mark.parametrize("fails", ["zeInit", "zeDriverGet", "zeDeviceGet", "zeDeviceGetProperties"])
def test_what_level_zero_does_not_tell_is_not_counted(fails: str) -> None:
    assert xpu_count(LevelZero([CARD], fails=fails)) == 0


def test_without_level_zero_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rallypoint_agent.accelerators._LEVEL_ZERO", "libnowhere.so.1")
    assert xpu_count() == 0
