"""Ends as ENDING says: "raise" on every rank at once, come what may, or "torn", which leaves half an error file."""

import os
import signal
import sys
import time
from pathlib import Path

from rallypoint.worker import record


def meet() -> None:
    folder = Path(os.environ["MEET"])
    (folder / os.environ["RANK"]).touch()
    while len(list(folder.iterdir())) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.001)


@record
def main() -> None:
    if os.environ["ENDING"] == "torn":
        Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text('{"message": {"message": "ValueError: n')
        sys.exit(7)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    meet()
    raise ValueError(f"shard {int(os.environ['RANK']) % 2} is missing")


main()
