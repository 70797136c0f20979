"""A function as what a worker runs: one of the program that the agent is part of."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import spawn
from types import FunctionType
from typing import Any

from rallypoint_agent.entrypoint import ReturnValueError
from rallypoint_agent.worker_env import worker_args


class Function:
    """A function, called in a fresh interpreter: it has to be found by its module and name, and its arguments pickled.

    Calls and return values are files of a temporary folder, one for each round, that only this user can read; nothing
    pickled comes from elsewhere.
    """

    def __init__(self, function: Callable[..., Any], args: Sequence[object], name: str) -> None:
        self._function = function
        self._args = args
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            self._pickled(local_rank=0)
        except Exception as error:  # Whatever pickling runs.
            raise ValueError(
                f"the function {name} cannot be called by a worker, a process of its own:"
                f" {type(error).__name__}: {error};"
                " give one that is defined at the top of a module, with arguments that can be pickled"
            ) from error
        if not _MAIN & _preparation().keys() and _needs_main((function, tuple(args))):
            raise ValueError(
                f"the function {name} cannot be called by a worker, a process of its own:"
                " it, or an argument, is defined in a program that is in no file"
                " (standard input, python -c, an interactive session); put it into a module"
            )

    def argv(self, round_number: int, local_rank: int) -> tuple[str, ...]:
        call, result = self._path("call", round_number, local_rank), self._path("result", round_number, local_rank)
        with open(call, "wb") as file:
            file.write(self._pickled(local_rank))
        return (sys.executable, "-u", "-m", "rallypoint.worker.function", call, result)

    def return_value(self, round_number: int, local_rank: int) -> Any:
        try:
            with open(self._path("result", round_number, local_rank), "rb") as file:
                return pickle.load(file)
        except FileNotFoundError:
            return None  # It ended its process itself, with 0.
        except KeyboardInterrupt:
            raise  # Somebody's who has the agent's terminal, and no word of the value's.
        except BaseException as error:  # Whatever unpickling runs, a sys.exit() as well.
            raise ReturnValueError(
                f"the return value cannot be read by the agent: {type(error).__name__}: {error}"
            ) from error

    def clear(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _pickled(self, local_rank: int) -> bytes:
        args = worker_args(self._args, local_rank)
        return pickle.dumps(_preparation()) + pickle.dumps((self._function, tuple(args)))

    def _path(self, what: str, round_number: int, local_rank: int) -> str:
        if self._folder is None:
            # What cannot be removed is no reason to end the job.
            self._folder = tempfile.TemporaryDirectory(prefix="rallypoint-function-", ignore_cleanup_errors=True)
        return os.path.join(self._folder.name, f"{what}-{round_number}-{local_rank}")


_MAIN = frozenset({"init_main_from_name", "init_main_from_path"})
"""How multiprocessing says where a worker finds the main module."""


def _preparation() -> dict[str, Any]:
    """How a worker makes importable what is importable here."""
    preparation: dict[str, Any] = spawn.get_preparation_data("worker")
    # The key of multiprocessing's own connections, which a worker has none of, is not to be written to a file.
    preparation.pop("authkey", None)
    # Of a program from standard input it is "<stdin>": of no use, and no harm if only modules are needed.
    if not os.path.exists(preparation.get("init_main_from_path", os.curdir)):
        del preparation["init_main_from_path"]
    return preparation


def _needs_main(value: object) -> bool:
    """Whether who unpickles it looks something up in the main module."""
    spotter = _MainSpotter(io.BytesIO())
    spotter.dump(value)
    return spotter.found


class _MainSpotter(pickle.Pickler):
    found = False

    def persistent_id(self, pickled: Any) -> None:
        """Called for every object that is pickled; None: by value, or by name if it is a function or class."""
        if isinstance(pickled, type | FunctionType) and pickled.__module__ == "__main__":
            self.found = True
