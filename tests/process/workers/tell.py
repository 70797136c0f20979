"""Leaves its environment and arguments in the folder TELL, as RANK.ROUND.json, and ends as told,
once all workers of the round have.

EXIT_IN_ROUND: "0:3,1:0" exits with 3 in round 0 and 0 in round 1; other rounds exit with 0.
RAISE_ON_RANK: raises there instead, recorded. LINGER_ON_RANK: waits there to be ended.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from rallypoint.worker import record


@record
def main() -> None:
    rank, round_number = os.environ["RANK"], os.environ["RALLYPOINT_ROUND"]
    print(f"out of rank {rank}", flush=True)
    print(f"err of rank {rank}", file=sys.stderr, flush=True)
    told = {"env": dict(os.environ), "argv": sys.argv[1:], "executable": sys.executable}
    target = Path(os.environ["TELL"], f"{rank}.{round_number}.json")
    target.with_suffix(".tmp").write_text(json.dumps(told))
    target.with_suffix(".tmp").rename(target)
    while len(list(target.parent.glob(f"*.{round_number}.json"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.01)
    if os.environ.get("RAISE_ON_RANK") == rank:
        raise ValueError("bad sample")
    if os.environ.get("LINGER_ON_RANK") == rank:
        signal.pause()
    exits = dict(item.split(":") for item in os.environ.get("EXIT_IN_ROUND", "").split(",") if item)
    sys.exit(int(exits.get(round_number, "0")))


main()
