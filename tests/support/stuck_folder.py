"""A folder that is served by nobody: who looks into it waits in the kernel, and not even SIGKILL ends that.

It is a FUSE file system whose server reads every request and answers none.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from pathlib import Path
from types import TracebackType

import pytest

_MNT_DETACH = 2
_INIT = 26
_READ_BYTES = 1 << 20
_REQUEST = struct.Struct("<IIQQIIII")
_ANSWER = struct.Struct("<IiQ")
_INIT_ANSWER = struct.Struct("<IIIIHHIIHH32x")

_libc = ctypes.CDLL(None, use_errno=True)


class StuckFolder:
    """A context. ``entry`` is what to look at to be stuck; ``release`` lets those go that are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entry = folder / "entry"
        self._fd = self._enough = -1

    def __enter__(self) -> StuckFolder:
        self.folder.mkdir()
        try:
            self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            pytest.skip(f"no FUSE here: {error}")
        options = f"fd={self._fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if _libc.mount(b"stuck", os.fsencode(self.folder), b"fuse", 0, options.encode()) < 0:
            os.close(self._fd)
            pytest.skip(f"mounting is forbidden here: {os.strerror(ctypes.get_errno())}")
        self._greet()
        self._enough = os.eventfd(0, os.EFD_CLOEXEC)
        self._server = threading.Thread(target=self._swallow)
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Whoever waits gets an error; what was killed meanwhile ends."""
        if self._fd >= 0:
            _libc.umount2(os.fsencode(self.folder), _MNT_DETACH)
            os.eventfd_write(self._enough, 1)
            self._server.join()
            os.close(self._fd)  # This ends the connection, and so all requests.
            os.close(self._enough)
            self._fd = -1

    def _greet(self) -> None:
        """The one answer: to the kernel's first question, which every mount begins with."""
        request = os.read(self._fd, _READ_BYTES)
        _, opcode, unique, *_ = _REQUEST.unpack_from(request)
        assert opcode == _INIT
        answer = _INIT_ANSWER.pack(7, 31, 0, 0, 0, 0, 4096, 1, 0, 0)
        os.write(self._fd, _ANSWER.pack(_ANSWER.size + len(answer), 0, unique) + answer)

    def _swallow(self) -> None:
        """A request that was read is one that its process cannot give up any more."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._enough, select.POLLIN)
        while self._enough not in dict(poll.poll()):
            os.read(self._fd, _READ_BYTES)
