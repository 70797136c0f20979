"""A worker that looks at LOOK_AT in round 0, if that is given, and then runs until it is told to end."""

import os
import sys
import time

if os.environ["RALLYPOINT_ROUND"] == "0" and (path := os.environ.get("LOOK_AT")):
    print("looking", flush=True)
    os.path.exists(path)
    sys.exit(1)
while True:
    time.sleep(0.02)
