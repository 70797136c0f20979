"""Ports that nobody uses, for tests that name them."""

from __future__ import annotations

import socket

BLOCK = 8
"""So many ports in a row belong to one caller."""
FIRST, END = 20_000, 32_000
"""Of the ports that the kernel gives nobody by itself."""


def free_range(count: int) -> range:
    """So many ports in a row, at most BLOCK, free just now; no other test gets them while this process lives."""
    assert count <= BLOCK
    for start in range(FIRST, END, BLOCK):
        if _claimed(start) and all(map(_is_free, range(start, start + count))):
            return range(start, start + count)
    raise AssertionError(f"no {count} ports in a row are free")


def free_pair(distance: int) -> tuple[int, int]:
    """Two ports so far from each other, as :func:`free_range` gives them."""
    for low in range(FIRST, END - distance, BLOCK):
        high = low + distance
        block = high - (high - FIRST) % BLOCK
        if block != low and _claimed(low) and _claimed(block) and _is_free(low) and _is_free(high):
            return low, high
    raise AssertionError(f"no two ports at a distance of {distance} are free")


def _claimed(start: int) -> bool:
    """Tests run side by side, and what is free just now may be bound only later: a name that one process can have."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0rallypoint-test-ports-{start}")
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("", port))
        except OSError:
            return False
    return True
