"""What a training script may import: the standard library is all it needs."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rallypoint.worker.timer import FileTimerClient, configure, expires

__all__ = ["FileTimerClient", "configure", "expires", "record", "write_error_file"]

P = ParamSpec("P")
R = TypeVar("R")


def record(function: Callable[P, R]) -> Callable[P, R | None]:
    """Decorate a worker's main function: what it dies of is left where the agent looks for it.

    The place comes from TORCHELASTIC_ERROR_FILE, the format is torch's, and so is what counts:
    an exception is written and raised again; ``sys.exit(0)`` is a return of None; any other
    SystemExit, and a KeyboardInterrupt, pass without a file.
    """

    @functools.wraps(function)
    def recorded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        _enable_faulthandler()
        try:
            return function(*args, **kwargs)
        except SystemExit as request:
            if request.code in (None, 0):
                return None
            raise
        except Exception as error:
            write_error_file(error)
            raise

    return recorded


def write_error_file(error: BaseException) -> None:
    """Tell the agent what ends this worker; nothing happens if no agent asks.

    The file appears whole or not at all. That it cannot be written is said on standard error:
    the worker ends of its own trouble, not of this one.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            json.dump(_report(error), file)
        os.replace(temporary, path)
    except OSError as trouble:
        print(f"rallypoint: cannot write the error file: {trouble}", file=sys.stderr, flush=True)


def _report(error: BaseException) -> dict[str, object]:
    trace = "".join(traceback.format_exception(error))
    extra = {"py_callstack": trace, "timestamp": str(int(time.time()))}
    return {"message": {"message": f"{type(error).__name__}: {_text(error)}", "extraInfo": extra}}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<its text cannot be had>"


def _enable_faulthandler() -> None:
    # It needs standard error to be a file.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        faulthandler.enable(all_threads=True)
