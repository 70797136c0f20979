from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.keeper_bench import Bench
from support.processes import is_alive


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    try:
        yield bench
    finally:
        bench.keeper.close()
        bench.expect_nothing_alive()
        assert not is_alive(bench.keeper.pid)


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    return tmp_path / "ready"
