"""Print pip constraints that pin every package that Rallypoint depends on to the lowest version that is allowed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
FLOOR = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")


def main() -> None:
    for requirement in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]:
        floor = FLOOR.match(requirement)
        if floor is None:
            raise SystemExit(f"{PYPROJECT}: {requirement!r} has no lowest version")
        print("{}=={}".format(*floor.groups()))


if __name__ == "__main__":
    main()
