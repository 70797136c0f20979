"""Where the workers' output goes: torch's classes, its folder layout, its syntax for what goes where.

    <log_dir, or a new temporary folder>/<run_id>_<random>/attempt_<round>/
        filtered_stdout.log  filtered_stderr.log
        <local_rank>/
            stdout.log  stderr.log  error.json

Each round has a folder of its own and nothing is ever deleted, so a restart leaves what was
written before it. Only a temporary folder in which nothing was written is removed at the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field
from enum import IntFlag
from string import Template
from typing import Any

from rallypoint.values import dataclass
from rallypoint_agent import entry_points

ENTRY_POINTS = "torchrun.logs_specs"

_ONE_FOR_ALL = re.compile(r"[0-3]")
_ONE_RANK = r"(0|[1-9][0-9]{0,8}):[0-3]"
_BY_RANK = re.compile(f"{_ONE_RANK}(,{_ONE_RANK})*")


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


def to_map(val_or_map: Std | Mapping[int, Std], local_world_size: int) -> dict[int, Std]:
    """What is meant for each local rank. A mapping that does not name one means NONE."""
    if isinstance(val_or_map, Std):
        return dict.fromkeys(range(local_world_size), val_or_map)
    return {local_rank: val_or_map.get(local_rank, Std.NONE) for local_rank in range(local_world_size)}


@dataclass
class LogsDest:
    """The files of one round, by local rank. "" in ``stdouts`` and ``stderrs``: where the agent's goes.

    A file that is in ``tee_stdouts`` or ``tee_stderrs`` is also shown on the agent's output, and its lines that a
    filter picks are copied to ``filtered_stdout`` or ``filtered_stderr`` ("": there are no files).
    """

    stdouts: dict[int, str] = field(default_factory=dict)
    stderrs: dict[int, str] = field(default_factory=dict)
    tee_stdouts: dict[int, str] = field(default_factory=dict)
    tee_stderrs: dict[int, str] = field(default_factory=dict)
    error_files: dict[int, str] = field(default_factory=dict)
    filtered_stdout: str = ""
    filtered_stderr: str = ""

    @property
    def log_dir(self) -> str:
        """The folder that holds all files with output; "" if there are none."""
        files = {*self.stdouts.values(), *self.stderrs.values()} - {"", os.devnull}
        return os.path.commonpath([os.path.dirname(path) for path in files]) if files else ""


class LogsSpecs(ABC):
    """What is written to files (``redirects``) and what besides is shown (``tee``), each for all or by local rank.

    ``local_ranks_filter``: of these alone anything is shown; None or empty means all. To do it another way, write a
    subclass, make it an entry point of the group ``torchrun.logs_specs``, and name it with ``--logs-specs``.
    """

    def __init__(
        self,
        log_dir: str | None = None,
        redirects: Std | dict[int, Std] = Std.NONE,
        tee: Std | dict[int, Std] = Std.NONE,
        local_ranks_filter: set[int] | None = None,
    ) -> None:
        self._root_log_dir = log_dir
        self._redirects = redirects
        self._tee = tee
        self._local_ranks_filter = local_ranks_filter

    @abstractmethod
    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """The files of a round whose workers, by local rank, get these environments.

        What is missing there is added: TORCHELASTIC_ERROR_FILE.
        """

    @property
    @abstractmethod
    def root_log_dir(self) -> str:
        """The folder that all runs have theirs in."""

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Called once no worker is alive any more."""


class DefaultLogsSpecs(LogsSpecs):
    """The layout that the module describes. ``log_dir`` /dev/null: no files, so all is shown as it comes.

    Raises OSError if ``log_dir`` cannot be made or written to.
    """

    def __init__(
        self,
        log_dir: str | None = None,
        redirects: Std | dict[int, Std] = Std.NONE,
        tee: Std | dict[int, Std] = Std.NONE,
        local_ranks_filter: set[int] | None = None,
    ) -> None:
        super().__init__(log_dir, redirects, tee, local_ranks_filter)
        self._writes_files = log_dir != os.devnull
        if log_dir and self._writes_files:
            _make_log_dir(log_dir)
        self._temporary = ""
        self._run_dir = ""

    @property
    def root_log_dir(self) -> str:
        """The folder that was asked for; if none was, a temporary one, made when it is first needed."""
        if self._root_log_dir:
            return self._root_log_dir
        if not self._temporary:
            self._temporary = tempfile.mkdtemp(prefix="torchelastic_")
        return self._temporary

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Make the folders of a round. Its number is RALLYPOINT_ROUND, else TORCHELASTIC_RESTART_COUNT."""
        if not self._writes_files:
            return self._without_files(envs)
        folder = self._make_round_dir(envs.get(0, {}))
        dest = LogsDest(
            filtered_stdout=os.path.join(folder, "filtered_stdout.log"),
            filtered_stderr=os.path.join(folder, "filtered_stderr.log"),
        )
        redirects, tee = to_map(self._redirects, len(envs)), to_map(self._tee, len(envs))
        for local_rank, env in envs.items():
            worker_dir = os.path.join(folder, str(local_rank))
            os.makedirs(worker_dir, exist_ok=True)
            env["TORCHELASTIC_ERROR_FILE"] = os.path.join(worker_dir, "error.json")
            dest.error_files[local_rank] = env["TORCHELASTIC_ERROR_FILE"]
            self._add_worker(dest, local_rank, worker_dir, redirects[local_rank], tee[local_rank])
        return dest

    def close(self) -> None:
        """Remove the folder that was made unasked, if nothing was written there."""
        if self._temporary:
            _remove_empty(self._temporary)

    def _make_round_dir(self, env: Mapping[str, str]) -> str:
        if not self._run_dir:
            run_id = env.get("TORCHELASTIC_RUN_ID", "none")
            base = os.path.abspath(self.root_log_dir)
            os.makedirs(base, exist_ok=True)
            self._run_dir = tempfile.mkdtemp(prefix=f"{run_id}_", dir=base)
        number = env.get("RALLYPOINT_ROUND") or env.get("TORCHELASTIC_RESTART_COUNT") or "0"
        return os.path.join(self._run_dir, f"attempt_{number}")

    def _add_worker(self, dest: LogsDest, local_rank: int, folder: str, redirects: Std, tee: Std) -> None:
        shown = self._is_shown(local_rank)
        streams = (
            (Std.OUT, "stdout.log", dest.stdouts, dest.tee_stdouts),
            (Std.ERR, "stderr.log", dest.stderrs, dest.tee_stderrs),
        )
        for stream, name, files, teed in streams:
            files[local_rank] = "" if shown else os.devnull
            if stream in redirects | tee:
                files[local_rank] = os.path.join(folder, name)
            if stream in tee and shown:
                teed[local_rank] = files[local_rank]

    def _without_files(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """As torch: nothing is redirected. That a rank is not to be shown holds all the same."""
        for env in envs.values():
            env["TORCHELASTIC_ERROR_FILE"] = ""
        shown = {local_rank: "" if self._is_shown(local_rank) else os.devnull for local_rank in envs}
        return LogsDest(shown, dict(shown), error_files=dict.fromkeys(envs, os.devnull))

    def _is_shown(self, local_rank: int) -> bool:
        return not self._local_ranks_filter or local_rank in self._local_ranks_filter


def load_logs_specs(
    name: str | None,
    log_dir: str | None,
    redirects: Std | dict[int, Std],
    tee: Std | dict[int, Std],
    local_ranks_filter: set[int] | None,
) -> LogsSpecs:
    """The LogsSpecs that an entry point of ``torchrun.logs_specs`` names, else the default.

    One that is derived from torch's own class gets torch's Std. Raises EntryPointError, and what its __init__ raises.
    """
    if name in (None, "default"):  # torch has an entry point of that name, for its own class.
        return DefaultLogsSpecs(log_dir, redirects, tee, local_ranks_filter)
    chosen = entry_points.load(ENTRY_POINTS, name)
    if not callable(getattr(chosen, "reify", None)):
        raise entry_points.EntryPointError(f"{chosen!r} is no LogsSpecs: it has no reify")
    return chosen(  # type: ignore[no-any-return]
        log_dir=log_dir,
        redirects=_as_std_of(chosen, redirects),
        tee=_as_std_of(chosen, tee),
        local_ranks_filter=local_ranks_filter,
    )


def _as_std_of(chosen: type[object], value: Std | dict[int, Std]) -> Any:
    homes = [sys.modules[base.__module__] for base in chosen.__mro__ if base.__name__ == "LogsSpecs"]
    std = getattr(homes[-1], "Std", Std) if homes else Std
    if isinstance(value, Std):
        return std(int(value))
    return {local_rank: std(int(one)) for local_rank, one in value.items()}


def line_prefix(template: str | None, role: str, local_rank: int, rank: int) -> str:
    """What stands before each shown line: ``[role0]:``, or torch's template (``string.Template``) filled in."""
    if not template:
        return f"[{role}{local_rank}]:"
    return Template(template).safe_substitute(role_name=role, local_rank=local_rank, rank=rank)


def _make_log_dir(path: str) -> None:
    os.makedirs(path, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _remove_empty(root: str) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        # It fails where something was written.
        with contextlib.suppress(OSError):
            os.rmdir(folder)
