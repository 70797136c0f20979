"""Rank 0 prints FLOOD_MB megabytes as fast as it can; the others print a line. Then each leaves a file in DONE."""

import os
import sys
from pathlib import Path

LINE = b"%011d\n"  # 12 bytes

if os.environ["RANK"] == "0":
    lines = int(os.environ["FLOOD_MB"]) * 1_000_000 // 12
    for start in range(0, lines, 10_000):
        sys.stdout.buffer.write(b"".join(LINE % number for number in range(start, min(start + 10_000, lines))))
else:
    print(f"rank {os.environ['RANK']} is here", flush=True)
sys.stdout.flush()
Path(os.environ["DONE"], os.environ["RANK"]).touch()
