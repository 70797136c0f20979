"""Where the workers' output goes: torch's folder layout, and its syntax for what goes where.

    <log_dir, or a new temporary folder>/<run_id>_<random>/attempt_<round>/<local_rank>/
        stdout.log  stderr.log  error.json

Each round has a folder of its own and nothing is ever deleted, so a restart leaves what was
written before it. Only a temporary folder in which nothing was written is removed at the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag

_ONE_FOR_ALL = re.compile(r"[0-3]")
_BY_RANK = re.compile(r"[0-9]{1,9}:[0-3](,[0-9]{1,9}:[0-3])*")


class Std(IntFlag):
    """Which of a worker's two output streams."""

    NONE = 0
    OUT = 1
    ERR = 2
    ALL = OUT | ERR

    @classmethod
    def from_str(cls, text: str) -> Std | dict[int, Std]:
        """Read ``3`` (all workers) or ``0:1,12:3`` (by local rank). Raises ValueError."""
        if _ONE_FOR_ALL.fullmatch(text):
            return cls(int(text))
        if _BY_RANK.fullmatch(text):
            pairs = [item.split(":") for item in text.split(",")]
            by_rank = {int(local_rank): cls(int(value)) for local_rank, value in pairs}
            if len(by_rank) < len(pairs):
                raise ValueError("it must name a local rank only once")
            return by_rank
        raise ValueError("it must be one of 0 to 3, or a list like 0:1,1:3")


@dataclass(frozen=True, slots=True)
class LogsDest:
    """The files of one round, by local rank. What is not there goes where the agent's goes.

    A file that is in ``tee_stdouts`` or ``tee_stderrs`` is also shown on the agent's output.
    """

    stdouts: dict[int, str] = field(default_factory=dict)
    stderrs: dict[int, str] = field(default_factory=dict)
    tee_stdouts: dict[int, str] = field(default_factory=dict)
    tee_stderrs: dict[int, str] = field(default_factory=dict)
    error_files: dict[int, str] = field(default_factory=dict)


class LogsSpecs:
    """What is written to files (``redirects``) and what besides is shown (``tee``).

    A user who names a ``log_dir`` and says neither wants both. ``log_dir`` /dev/null: no files;
    what is redirected is lost, and so are the workers' error files.
    """

    def __init__(
        self,
        log_dir: str | None = None,
        redirects: Std | dict[int, Std] = Std.NONE,
        tee: Std | dict[int, Std] = Std.NONE,
    ) -> None:
        self._writes_files = log_dir != os.devnull
        if not self._writes_files and tee:
            raise ValueError("tee needs files, but the log folder is /dev/null")
        if log_dir and self._writes_files and not redirects and not tee:
            tee = Std.ALL
        self._log_dir = log_dir
        self._redirects = redirects
        self._tee = tee
        self._temporary = ""
        self._run_dir = ""

    @property
    def root_log_dir(self) -> str:
        """The folder of this run, "" before the first round and if there are no files."""
        return self._run_dir

    def round_log_dir(self, round_number: int) -> str:
        """The folder of one round; it need not exist."""
        return os.path.join(self._run_dir, f"attempt_{round_number}") if self._run_dir else ""

    def make_log_dir(self) -> None:
        """Make the folder that was asked for, if one was. Raises OSError if it cannot be used."""
        if self._log_dir and self._writes_files:
            os.makedirs(self._log_dir, exist_ok=True)
            if not os.access(self._log_dir, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._log_dir)

    def reify(self, run_id: str, round_number: int, local_world_size: int) -> LogsDest:
        """Make the folders of a round. Raises OSError."""
        dest = LogsDest()
        if self._writes_files:
            self._make_run_dir(run_id)
        for local_rank in range(local_world_size):
            self._add_worker(dest, round_number, local_rank)
        return dest

    def close(self) -> None:
        """Remove the folder that was made unasked, if nothing was written there."""
        if self._temporary:
            _remove_empty(self._temporary)

    def _make_run_dir(self, run_id: str) -> None:
        if self._run_dir:
            return
        self.make_log_dir()
        if not self._log_dir:
            self._temporary = tempfile.mkdtemp(prefix="torchelastic_")
        base = os.path.abspath(self._log_dir or self._temporary)
        self._run_dir = tempfile.mkdtemp(prefix=f"{run_id}_", dir=base)

    def _add_worker(self, dest: LogsDest, round_number: int, local_rank: int) -> None:
        redirects, tee = _of_rank(self._redirects, local_rank), _of_rank(self._tee, local_rank)
        if not self._writes_files:
            dest.error_files[local_rank] = ""
            out = err = os.devnull
        else:
            folder = os.path.join(self.round_log_dir(round_number), str(local_rank))
            os.makedirs(folder, exist_ok=True)
            dest.error_files[local_rank] = os.path.join(folder, "error.json")
            out, err = os.path.join(folder, "stdout.log"), os.path.join(folder, "stderr.log")
        if Std.OUT in redirects | tee:
            dest.stdouts[local_rank] = out
        if Std.ERR in redirects | tee:
            dest.stderrs[local_rank] = err
        if Std.OUT in tee:
            dest.tee_stdouts[local_rank] = out
        if Std.ERR in tee:
            dest.tee_stderrs[local_rank] = err


def line_prefix(template: str | None, role: str, local_rank: int, rank: int) -> str:
    """What stands before each shown line: ``[role0]:``, or torch's template filled in."""
    if template is None:
        return f"[{role}{local_rank}]:"
    values = {"role_name": role, "local_rank": str(local_rank), "rank": str(rank)}
    return re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)


def _of_rank(value: Std | Mapping[int, Std], local_rank: int) -> Std:
    return value if isinstance(value, Std) else value.get(local_rank, Std.NONE)


def _remove_empty(root: str) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        # It fails where something was written.
        with contextlib.suppress(OSError):
            os.rmdir(folder)
