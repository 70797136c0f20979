"""An obituary that tells what is alive when it runs: ``obituary_witness.py MARK LOG``."""

import json
import sys

from support.processes import pids_with_mark

mark, log = sys.argv[1:]
with open(log, "a") as file:
    file.write(json.dumps(["Obituary", sorted(pids_with_mark(mark))]) + "\n")
