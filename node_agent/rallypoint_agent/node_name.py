"""A node's default name: the host's, numbered where several agents of one job share a host.

The first agent of a job on a host is ``host``, the next ``host-2``, and so on: ranks, quarantine and drain go by the
name, so it should be the same after a restart. An agent owns its number by two locks on files in a folder of the
user's own under the temporary directory:

- ``JOB.N.agent``, held by the agent alone: its number is in use.
- ``JOB.N.node``, held by the agent and its keeper, which inherits the descriptor: the number is free only when no
  worker of that agent can be alive any more. An agent that finds only this one locked was started again while its
  predecessor's keeper still tidies up, and waits for it.

The second file has the agent's record for its successor in it (:mod:`rallypoint_agent.predecessor`). A name that was
given by --node-name has that file alone, ``JOB.NAME.CHECKSUM.node``: two that use one name are told so by the
coordinator.

The kernel drops the locks when the processes end, however they end. A third one, shared, is on the folder: systemd's
cleaner of old temporary files leaves alone what is below a locked folder.

Without such a folder the name is the host's: where nobody can write, a container as a rule, the host name is the
agent's own. Should two agents get the same name nevertheless, the coordinator refuses the second.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import stat
import tempfile
import time
import zlib
from pathlib import Path

_NUMBERS = range(1, 1025)
_HOST_LENGTH_MAX = 240
_SHOWN_LENGTH = 100
_KEEPER_WAIT_S = 3.0
_POLL_S = 0.02
_RECORD_BYTES = 1 << 16

logger = logging.getLogger(__name__)


class NodeName:
    """A name, and what owns it.

    ``fd`` is what the keeper is to be started with (``pass_fds``): the name is then taken until both have ended. It is
    None for a name that is not owned. ``left``: the record of the last owner, if that did not come to its end well.
    """

    def __init__(self, name: str, agent: _Lock | None = None, node: _Lock | None = None) -> None:
        self.name = name
        self.fd = node.fd if node else None
        self.left = node.read() if node else ""
        self._node = node
        self._locks = [lock for lock in (agent, node) if lock]

    def note(self, record: str) -> None:
        """Leave this line for the next owner, should we and the keeper be killed. The newest counts."""
        if self._node is not None:
            self._node.write(record)

    def keep_record(self) -> None:
        """Give the name back, but with the record: what it tells of is not settled."""
        for lock in self._locks:
            lock.let_go()
        self._locks, self.fd, self._node = [], None, None

    def leave_to_keeper(self) -> None:
        """The keeper outlives us: the name stays taken until it has ended, whatever ``close`` gives back."""
        node = self._node
        if node is not None:
            node.let_go()
        self._locks, self.fd, self._node = [lock for lock in self._locks if lock is not node], None, None

    def close(self) -> None:
        """Give the name back. To be called when the keeper has ended; else its lock goes on without a file."""
        for lock in self._locks:
            lock.remove()
        self._locks, self.fd, self._node = [], None, None


def claim_node_name(job: str, explicit: str | None = None, folder: Path | None = None) -> NodeName:
    """The name for this agent of the job. ``explicit`` is taken as it is, owned or not.

    Blocks for a few seconds if the last agent of that name has just ended. Never raises OSError.
    """
    if explicit:
        return _own_explicit(folder, job, explicit)
    host = _host_name()
    try:
        return _claim(folder or own_folder(), job, host)
    except OSError as error:
        logger.warning("cannot lock a node name, using the host's: %s", error)
        return NodeName(host)


def _own_explicit(folder: Path | None, job: str, name: str) -> NodeName:
    try:
        path = (folder or own_folder()) / _explicit_file(job, name)
        return NodeName(name, node=_Lock.take(path, wait_s=_KEEPER_WAIT_S))
    except OSError as error:
        logger.warning("what earlier agents of node %s left cannot be found: %s", name, error)
        return NodeName(name)


def _explicit_file(job: str, name: str) -> str:
    """A file name of bounded length; the checksum tells apart what looks the same in it."""
    # Not of hashlib, which loads OpenSSL: 3 MB for a name.
    checksum = zlib.crc32(f"{job}\0{name}".encode())
    return f"{_sanitise(job)[:_SHOWN_LENGTH]}.{_sanitise(name)[:_SHOWN_LENGTH]}.{checksum:08x}.node"


def _claim(folder: Path, job: str, host: str) -> NodeName:
    for number in _NUMBERS:
        locks = _lock_number(folder / f"{_sanitise(job)}.{number}")
        if locks is not None:
            return NodeName(host if number == 1 else f"{host}-{number}", *locks)
    raise OSError(f"all of {len(_NUMBERS)} names of job {job} are taken")


def _lock_number(path: Path) -> tuple[_Lock, _Lock] | None:
    agent = _Lock.take(path.with_name(path.name + ".agent"), wait_s=0)
    if agent is None:
        return None
    try:
        node = _Lock.take(path.with_name(path.name + ".node"), wait_s=_KEEPER_WAIT_S)
    except OSError:
        agent.remove()
        raise
    if node is None:
        agent.remove()
        return None
    return agent, node


class _Lock:
    """A locked file. Its descriptor can be inherited by being passed on, and the lock with it."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self.fd = fd
        self._folder_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.flock(self._folder_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    @classmethod
    def take(cls, path: Path, wait_s: float) -> _Lock | None:
        """None if somebody else has it, even after that time. Raises OSError if there can be no file."""
        until = time.monotonic() + wait_s
        while True:
            lock = cls._try(path)
            if lock is not None:
                return lock
            if time.monotonic() >= until:
                return None
            time.sleep(_POLL_S)

    @classmethod
    def _try(cls, path: Path) -> _Lock | None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed the file after we opened it.
            is_ours = _is_file_of(fd, path)
        except BlockingIOError:
            is_ours = False
        except OSError:
            os.close(fd)
            raise
        if is_ours:
            return cls(path, fd)
        os.close(fd)
        return None

    def read(self) -> str:
        """Its first line; the rest may be of a longer line that was there before."""
        line = os.pread(self.fd, _RECORD_BYTES, 0).partition(b"\n")[0]
        return line.decode("utf-8", "replace")

    def write(self, line: str) -> None:
        """At once, so that a kill leaves this line or the last one."""
        data = f"{line}\n".encode()
        os.pwrite(self.fd, data, 0)
        os.ftruncate(self.fd, len(data))

    def remove(self) -> None:
        """Give the lock back, and leave no file behind."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self.let_go()

    def let_go(self) -> None:
        """Whoever inherited the descriptor has the lock alone."""
        os.close(self.fd)
        os.close(self._folder_fd)


def _is_file_of(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def own_folder() -> Path:
    """A folder of this user's own under the temporary directory. Raises OSError if there is none to be had."""
    folder = Path(tempfile.gettempdir()) / f"rallypoint-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user's own")
    return folder


def _host_name() -> str:
    return _sanitise(socket.gethostname())[:_HOST_LENGTH_MAX] or "localhost"


def _sanitise(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)
