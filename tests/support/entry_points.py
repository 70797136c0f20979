"""Entry points as an installed distribution has them, without installing one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest


def write_entry_points(folder: Path, group: str, values: Mapping[str, str]) -> None:
    """Make ``folder`` one that declares them, once it is on sys.path or PYTHONPATH. One call for a group."""
    info = folder / f"plugged_{group.replace('.', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info.name.partition('-')[0]}\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in values.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))


def plug_in(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, values: Mapping[str, str]) -> None:
    """The same, for this process, as long as the test runs."""
    write_entry_points(folder, group, values)
    monkeypatch.syspath_prepend(folder)
