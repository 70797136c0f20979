"""asyncio without OpenSSL, which is a tenth of what an agent weighs: gRPC speaks TLS by itself."""

from __future__ import annotations

import importlib
import sys


def import_asyncio() -> None:
    """Import asyncio as where Python was built without OpenSSL, if neither is imported yet.

    For a process in which nobody else uses asyncio: its own TLS is not to be had there. ``import ssl`` works as ever
    afterwards. To be called while there is one thread.
    """
    if {"asyncio", "ssl"} & sys.modules.keys():
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # how Python says that there is no such module
    try:
        importlib.import_module("asyncio")
    finally:
        del sys.modules["ssl"]
