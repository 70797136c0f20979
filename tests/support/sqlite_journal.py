"""SQLite journals to try things on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from rallypoint_coordinator.store.sqlite_file import JournalFile


def by_hand(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    with db:
        for statement in statements:
            db.execute(statement)
    db.close()


def whole_journal(path: Path) -> None:
    """Records 1 to 30, a snapshot of revision 20, the first ten records dropped."""
    file = JournalFile(path)
    file.append(0, [f"record {revision}".encode() for revision in range(1, 31)])
    file.begin_snapshot(20)
    for chunk in range(3):
        file.add_chunk(20, chunk, f"chunk {chunk}".encode())
    file.finish_snapshot(20, 3)
    file.drop_records(10, 1_000)
    file.close()
