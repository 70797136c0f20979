"""``python -m support.failing_sync ARGUMENTS``: rallypoint, of which every fsync and fdatasync fails after a SIGUSR1.

With FAIL_NOW in the environment they fail from the start. A seccomp filter does it, so it is the kernel that says EIO.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys

from rallypoint.cli import main

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06

CALLS = {
    "x86_64": {"seccomp": 317, "fsync": 74, "fdatasync": 75},
    "aarch64": {"seccomp": 277, "fsync": 82, "fdatasync": 83},
}


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def fail_from_now_on(*_: object) -> None:
    """In every thread, and for good."""
    calls = CALLS[platform.machine()]
    steps = (
        (LOAD_WORD, 0, 0, 0),
        (JUMP_IF_EQUAL, 2, 0, calls["fsync"]),
        (JUMP_IF_EQUAL, 1, 0, calls["fdatasync"]),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EIO),
    )
    program = Program(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(calls["seccomp"], SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, fail_from_now_on)
    if "FAIL_NOW" in os.environ:
        fail_from_now_on()
    sys.exit(main(sys.argv[1:]))
