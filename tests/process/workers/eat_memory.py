"""Rank 0 takes all the memory that it can get."""

import os
import signal

if os.environ["RANK"] == "0":
    taken = []
    while True:
        taken.append(bytearray(os.urandom(4096)) * 1024)
signal.pause()
