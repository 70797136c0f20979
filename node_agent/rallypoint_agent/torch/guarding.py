"""torchrun's side of its guard."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from rallypoint.model import KILL_PATIENCE_MS
from rallypoint.security.client import NO_SECURITY, ClientSecurity
from rallypoint_agent.core.effects import SetFence, SetIdentity
from rallypoint_agent.obituary import Obituary, obituary_command
from rallypoint_agent.torch import guard
from rallypoint_agent.torch.marked import MARK_VARIABLE, kill_marked


class WorkersGuard:
    """What torchrun starts from now on carries ``mark``. ``obituary`` lacks what only a welcome tells."""

    def __init__(self, mark: str, obituary: Obituary) -> None:
        self._mark = mark
        self._obituary = obituary
        package = Path(guard.__file__).parents[2]
        # It must not carry the mark itself, which is set only now.
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-I", guard.__file__, mark, str(package)], stdin=subprocess.PIPE, bufsize=0
        )
        os.environ[MARK_VARIABLE] = mark

    def fence(self, effect: SetFence) -> None:
        """Should torchrun not have ended its workers by then, they are killed."""
        self._tell({"kill_at_ms": effect.kill_at_ms})

    def identify(self, effect: SetIdentity) -> None:
        """Whose death the obituary would tell of."""
        if effect.lease_id:
            obituary = self._obituary._replace(job_uid=effect.job_uid, lease_id=effect.lease_id)
            self._tell({"obituary": obituary_command(obituary)})

    def sweep(self) -> list[int]:
        """torchrun has ended its workers: end what they left behind. Returns what SIGKILL does not end."""
        self._tell({"kill_at_ms": 0})
        return kill_marked(self._mark, KILL_PATIENCE_MS / 1000)

    def close(self, *, is_known: bool) -> None:
        """``is_known``: the coordinator knows that we are gone, so there is nothing to tell it. Again: nothing."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return
        if is_known:
            self._tell({"over": True})
        self._process.stdin.close()
        os.environ.pop(MARK_VARIABLE, None)
        if is_known:
            self._process.wait()

    def _tell(self, words: dict[str, object]) -> None:
        assert self._process.stdin is not None
        # Without a guard there is only what torchrun does itself. That was not ours to end.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(words).encode() + b"\n")


def obituary_of_torchrun(
    endpoints: tuple[tuple[str, int], ...],
    job: str,
    incarnation: str,
    lease_ttl_ms: int,
    security: ClientSecurity = NO_SECURITY,
) -> Obituary:
    """It lacks the life and the lease."""
    return Obituary(
        endpoints=endpoints,
        job=job,
        job_uid="",
        lease_id=0,
        incarnation=incarnation,
        message="torchrun was killed; its guard ended the workers",
        ttl_ms=lease_ttl_ms,
        security=security,
    )
