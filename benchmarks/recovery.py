"""How often a gloo job recovers from one SIGKILLed worker in exactly one restart: ``make recovery N=20``.

torchrun 2.13 recovered 3 of 10 on a small machine: there the workers of the new round read keys of the old one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from support.recovery import NODES, recover


def main(runs: int) -> int:
    recovered = 0
    for run in range(runs):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="rallypoint-recovery-") as folder:
            seen = recover(Path(folder), victim=run % len(NODES))
        recovered += seen.in_one_restart
        verdict = "recovered" if seen.in_one_restart else "NOT recovered in one restart"
        print(
            f"{run + 1:3} of {runs}: rank {run % len(NODES)} killed, {verdict}, restart counts {seen.restart_counts},"
            f" accuracy {seen.accuracy:.4f}, {time.monotonic() - began:.1f} s",
            flush=True,
        )
        if not seen.in_one_restart:
            print(seen.transcript)
    print(f"{recovered} of {runs} recovered in one restart")
    return 0 if recovered == runs else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
