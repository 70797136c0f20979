"""Notes every signal that could end it in the file NOTES. With STUBBORN it goes on nevertheless."""

import os
import signal
import sys
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def note(number: int, frame: FrameType | None) -> None:
    tell(signal.Signals(number).name)
    if not os.environ.get("STUBBORN"):
        sys.exit(0)


def tell(text: str) -> None:
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{text}\n")


for number in NUMBERS:
    signal.signal(number, note)
tell("ready")
while True:
    signal.pause()
