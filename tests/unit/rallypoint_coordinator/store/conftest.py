from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint_coordinator.store.sqlite_file import JournalFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def file(path: Path) -> Iterator[JournalFile]:
    file = JournalFile(path)
    yield file
    file.close()
