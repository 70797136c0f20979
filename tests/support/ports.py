"""Ports that nobody uses, for tests that name them."""

from __future__ import annotations

import socket


def free_range(count: int) -> range:
    """So many ports in a row, free just now, of those that the kernel gives nobody by itself."""
    for start in range(20_000, 32_000, count):
        ports = range(start, start + count)
        if all(map(_is_free, ports)):
            return ports
    raise AssertionError(f"no {count} ports in a row are free")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("", port))
        except OSError:
            return False
    return True
