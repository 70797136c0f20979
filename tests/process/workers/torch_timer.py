"""A script as torch's documentation of the timers has it. In round 0 rank 1 hangs."""

import os
import signal

import torch.distributed.elastic.timer as timer

timer.configure(timer.FileTimerClient(os.environ["TORCHELASTIC_TIMER_FILE"]))

with timer.expires(after=600, scope="all"):
    hangs = os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    with timer.expires(after=0.5 if hangs else 600, scope="the step"):
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            signal.pause()
print("done")
