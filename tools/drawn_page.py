"""Pages of docs/ that are drawn from tables in the code."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def write_or_check(name: str, drawn: str) -> int:
    """Write the page; with ``--check`` on the command line say instead whether it is out of date. The exit status."""
    page = DOCS / f"{name}.md"
    if "--check" not in sys.argv:
        page.write_text(drawn)
    elif not page.exists() or page.read_text() != drawn:
        print(f"docs/{name}.md is out of date: run `make docs`", file=sys.stderr)
        return 1
    return 0
