"""The process in namespaces of its own that measures for cut_off.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scoreboard.losses.cut_off import cut_off_inside

if __name__ == "__main__":
    print(json.dumps(cut_off_inside(Path(sys.argv[1]), int(sys.argv[2]))))
