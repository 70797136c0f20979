from __future__ import annotations

import os
from pathlib import Path

import pytest

from rallypoint_agent.full_disk import full_disk
from rallypoint_agent.logs import LogsDest
from support.disk import small_disk


def test_a_disk_is_full_when_not_a_byte_is_free(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        (disk.path / "0").mkdir()
        out, error = str(disk.path / "0" / "out"), str(disk.path / "error.json")
        told = f"no space is left on the disk at {disk.path.resolve()}, where it writes to"
        logged, reported = LogsDest(stdouts={1: out}), LogsDest(stdouts={1: ""}, error_files={1: error})
        assert full_disk(logged, 1) == ""
        disk.fill()
        assert full_disk(logged, 1) == told
        assert full_disk(reported, 1) == told
        assert full_disk(logged, 0) == "", "another worker's files may be elsewhere"
        disk.free()
        assert full_disk(logged, 1) == ""


@pytest.mark.parametrize("path", ["", os.devnull, "/no/such/folder/out", "/proc/self/out"])
def test_where_nothing_can_be_full_nothing_is(path: str) -> None:
    """/proc has no size at all."""
    assert full_disk(LogsDest({0: path}, {0: path}, error_files={0: path}), 0) == ""
