"""Prints 300 numbered lines on both streams, each in several writes, next to its brothers who do the same."""

import os
import sys

rank = os.environ["RANK"]
for number in range(300):
    for stream in (sys.stdout, sys.stderr):
        for part in (f"<rank {rank} ", f"line {number}", f" {'x' * (number % 90)}", ">", "\n"):
            stream.write(part)
            stream.flush()
