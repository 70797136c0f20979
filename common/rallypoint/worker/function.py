"""``python -m rallypoint.worker.function CALL RESULT``: a worker that is a function of its agent's program.

CALL is a file that the agent wrote: how to make the importing process's modules importable here, then the function
with its arguments, each pickled. RESULT is where the pickled return value appears, whole or not at all. An exception
is left in the error file and ends the worker with 1, as :func:`rallypoint.worker.record` has it.
"""

from __future__ import annotations

import os
import pickle
import sys
from multiprocessing import spawn
from typing import Any, BinaryIO

from rallypoint.worker import record


@record
def main(call_path: str, result_path: str) -> None:
    with open(call_path, "rb") as call:
        # Before anything is looked up by name: the function may live in the agent's main module.
        spawn.prepare(pickle.load(call))
        value = _called(call)
    _write(value, result_path)


def _called(call: BinaryIO) -> Any:
    function, args = pickle.load(call)
    # sys.exit(0) in it is a return of None.
    return record(function)(*args)


def _write(value: Any, path: str) -> None:
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        pickle.dump(value, file)
    os.replace(temporary, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
