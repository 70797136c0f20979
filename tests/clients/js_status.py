"""The status client of examples/clients/node."""

from __future__ import annotations

from pathlib import Path


def js_status(client: Path) -> list[str]:
    return ["node", str(client / "status.js")]
