"""What an agent keeps on disk for its successor, and what that one does with it.

Of an agent and its keeper that are killed in the same instant nobody is left to end what their workers started in
sessions of their own. The next agent of that node name does: it knows such processes by the incarnation in their
environment, and has the record, and so the right to kill, only once both locks of the name are its own (see
:mod:`rallypoint_agent.node_name`): then that agent and that keeper have ended.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from pathlib import Path

from rallypoint.values import dataclass
from rallypoint_agent.grpc_setup import scrubbed_environ
from rallypoint_agent.keeper import process_tree
from rallypoint_agent.obituary import Obituary, obituary_command, obituary_of
from rallypoint_agent.worker_env import INCARNATION_VARIABLE

SWEEP_S = 30.0
"""So long SIGKILL may take to end what is left."""

_TELL_S = 5.0
"""So long an obituary is tried. The coordinator that does not hear it waits for the lease."""

_OBITUARY_MARGIN_S = 10.0
"""So much longer it may take: its start, and its last call."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = "/proc/self/ns/pid"

logger = logging.getLogger(__name__)


class LeftoversError(Exception):
    """Processes of an earlier agent are still there, though they were killed."""


@dataclass(frozen=True, slots=True)
class Record:
    """Of one incarnation of an agent: where it ran, and what is to be reported once it is gone."""

    boot_id: str
    pid_namespace: str
    incarnation: str
    obituary: Obituary | None


def record_of(incarnation: str, obituary: Obituary | None = None) -> str:
    """The record of this process, one line of text."""
    return json.dumps([_boot_id(), _pid_namespace(), incarnation, obituary])


def parse_record(text: str) -> Record | None:
    """None if it is none: it may be cut short, or of another version."""
    try:
        boot_id, pid_namespace, incarnation, obituary = json.loads(text)
        record = Record(str(boot_id), str(pid_namespace), incarnation, obituary_of(obituary) if obituary else None)
        # An empty mark would be anybody's.
        return record if re.fullmatch("[0-9a-f]{32}", incarnation) else None
    except (ValueError, TypeError, RecursionError):
        return None


def clear_predecessor(text: str, sweep_s: float = SWEEP_S) -> None:
    """End what the agent of this record left, then tell the coordinator that it is gone.

    Nothing is done for another boot or pid namespace: what runs there cannot be seen from here.
    Raises LeftoversError if something is left after ``sweep_s`` seconds; then nothing is told.
    """
    record = parse_record(text)
    if record is None or (record.boot_id, record.pid_namespace) != (_boot_id(), _pid_namespace()):
        return
    killed, left = process_tree.sweep_marked(f"{INCARNATION_VARIABLE}={record.incarnation}", sweep_s)
    if left:
        raise LeftoversError(f"processes of an earlier agent do not end, not even by SIGKILL: {sorted(left)}")
    if killed:
        logger.warning("an earlier agent was killed with its keeper: ended what they left, %d processes", killed)
    if record.obituary is not None and record.obituary.lease_id:
        _tell(record.obituary)


def _tell(obituary: Obituary) -> None:
    message = "the agent and its keeper were killed; the next agent of the node ended what they left"
    command = obituary_command(obituary._replace(message=message, ttl_ms=round(_TELL_S * 1000)))
    try:
        subprocess.run(command, env=scrubbed_environ(), timeout=_TELL_S + _OBITUARY_MARGIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("the coordinator was not told that the earlier agent is gone: %s", error)


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _pid_namespace() -> str:
    return os.readlink(_PID_NAMESPACE)
