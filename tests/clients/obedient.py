"""A worker that leaves its environment as FOLDER/RANK.ROUND.json and ends with what FOLDER/exit.RANK.ROUND, or
FOLDER/exit.all, says once it is there: ``obedient.py FOLDER``."""

import json
import os
import sys
import time
from pathlib import Path

folder, name = Path(sys.argv[1]), f"{os.environ['RANK']}.{os.environ['RALLYPOINT_ROUND']}"
unfinished = folder / f"{name}.unfinished"
unfinished.write_text(json.dumps(dict(os.environ)))
unfinished.rename(folder / f"{name}.json")
orders = folder / f"exit.{name}", folder / "exit.all"
while not any(order.exists() for order in orders):
    time.sleep(0.02)
sys.exit(next(int(order.read_text()) for order in orders if order.exists()))
