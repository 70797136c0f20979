"""A worker that runs until it is told to end: by SIGTERM, or by the file WAIT_FOR appearing."""

import os
import sys
import time

print(
    f"worker of round {os.environ['RALLYPOINT_ROUND']} restart {os.environ['TORCHELASTIC_RESTART_COUNT']}", flush=True
)
wanted = os.environ.get("WAIT_FOR", "")
while not (wanted and os.path.exists(wanted)):
    time.sleep(0.02)
sys.exit(int(os.environ.get("EXIT_WITH", "0")))
