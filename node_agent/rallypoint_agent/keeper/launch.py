"""Starting a process: fork, prepare, exec.

Runs in the keeper only: forking is safe there, it is single-threaded.
"""

from __future__ import annotations

import os
import signal

from rallypoint_agent.keeper import linux

# See framing.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rallypoint_agent.keeper.framing import Message

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY


def launch(command: Message) -> tuple[int, int]:
    """Fork a process that becomes ``command``: argv, env, stdout, stderr, cwd, cpus.

    Returns its pid and a pipe on which it says why it cannot: the end of the pipe without a word
    means that the program runs (or was killed). Raises OSError if there is no process to be had.
    """
    receiver, sender = os.pipe()
    keeper = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _become(command, keeper, sender)
    except OSError:
        os.close(receiver)
        raise
    finally:
        os.close(sender)
    return pid, receiver


def _become(command: Message, keeper: int, sender: int) -> NoReturn:
    """Whatever happens here must not return into the keeper's own code."""
    try:
        _prepare(keeper)
        _redirect(command.get("stdout"), 1)
        _redirect(command.get("stderr"), 2)
        _change_directory(command.get("cwd"))
        _bind(command.get("cpus"))
        _execute(command["argv"], command["env"])
    except BaseException as error:
        os.write(sender, str(error).encode("utf-8", "surrogateescape")[:4096])
    finally:
        os._exit(127)


def _prepare(keeper: int) -> None:
    os.setsid()
    linux.die_with_parent(keeper)
    # What the keeper blocks has its default (supervisor.py), and exec gives up its handlers.
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _redirect(path: str | None, target: int) -> None:
    if path is None:
        return
    try:
        os.dup2(os.open(path, _APPEND, 0o666), target)
    except OSError as error:
        raise RuntimeError(f"cannot open {path!r}: {error.strerror}") from None


def _change_directory(path: str | None) -> None:
    if path is None:
        return
    try:
        os.chdir(path)
    except OSError as error:
        raise RuntimeError(f"cannot change to {path!r}: {error.strerror}") from None


def _bind(cpus: list[int] | None) -> None:
    if cpus is None:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RuntimeError(f"cannot run on CPUs {cpus}: {reason}") from None


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    try:
        os.execvpe(argv[0], argv, env)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RuntimeError(f"cannot run {argv[0]!r}: {reason}") from None
