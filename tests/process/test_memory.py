"""How a coordinator's process takes memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from rallypoint.v1 import job_service_pb2
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint_coordinator.server.allocator import SET_BY_A_PERSON

HEAP_BYTES = 64 << 20
"""glibc reserves so much for a heap that is not the process's own, at a multiple of it, and opens it as it grows."""
TIMEOUT_S = 30.0

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of threads are glibc's")


def heaps_of_threads(pid: int) -> int:
    """Each is a span that is open, and one that is reserved behind it."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    spans = [(*_numbers(line[0]), line[1]) for line in lines]
    return sum(_is_heap(*opened, *reserved) for opened, reserved in pairwise(spans))


def _numbers(span: str) -> tuple[int, int]:
    start, end = span.split("-")
    return int(start, 16), int(end, 16)


def _is_heap(start: int, middle: int, mode: str, reserved: int, end: int, reserved_mode: str) -> bool:
    is_one = middle == reserved and end - start == HEAP_BYTES and start % HEAP_BYTES == 0
    return is_one and (mode, reserved_mode) == ("rw-p", "---p")


@pytest.mark.parametrize(("said", "has_others"), [({}, False), ({"MALLOC_ARENA_MAX": "4"}, True)])
def test_all_threads_have_one_heap_unless_a_person_says_otherwise(said: dict[str, str], has_others: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_A_PERSON} | said
    argv = [sys.executable, "-m", "rallypoint", "coordinator", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as served:
        try:
            assert served.stdout is not None
            address = served.stdout.readline().split()[-1]
            with grpc.insecure_channel(address) as channel:
                JobServiceStub(channel).ListJobs(job_service_pb2.ListJobsRequest(), timeout=TIMEOUT_S)
            assert (heaps_of_threads(served.pid) > 0) is has_others
        finally:
            served.kill()
