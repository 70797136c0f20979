"""A worker that, if it is the rank HANG and this is round 0, hangs inside a timer; the others wait, or end with 0."""

import os
import signal

from rallypoint.worker import expires

with expires(60, scope="all of it"):
    if os.environ["RALLYPOINT_ROUND"] == "0":
        hangs = os.environ["RANK"] == os.environ.get("HANG", "0")
        with expires(0.5 if hangs else 60, scope="the step that hangs"):
            signal.pause()
