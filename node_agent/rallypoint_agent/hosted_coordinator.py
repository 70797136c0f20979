"""The coordinator of a torchrun command line: started on the host that the line names, unless one is there.

It is a process of its own session, so that it outlives the agent that started it: the death of that agent must not cost
the job. It ends by itself when nobody needs it any more (``--exit-when-idle``). The port is the lock: of several that
are started at once, one can listen, and the agents of the others go to that one.

It keeps its decisions in memory: should it end, agents hold their workers, and another one on the address learns from
them what runs.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rallypoint.model import Endpoint
from rallypoint.values import dataclass
from rallypoint_agent import grpc_setup
from rallypoint_agent.coordinator_process import COMMAND, CoordinatorStartError, announced
from rallypoint_agent.meeting import Hosting
from rallypoint_agent.node_name import own_folder
from rallypoint_agent.this_host import is_loopback_name, names_this_host
from rallypoint_agent.who_answers import Answer, who_answers

IDLE_VARIABLE = "RALLYPOINT_EXIT_WHEN_IDLE"
"""How long it stays without anybody, as a duration; for whom 60 s are too short, or too long."""

_IDLE = "60s"
_STARTS = 3
_LOOK_AGAIN_S = 0.05
_PATIENCE_S = {Answer.STRANGER: 0.0, Answer.HANGS_UP: 5.0, Answer.SILENT: 30.0}
"""How long it may go on to seem something else, since it may be a coordinator that starts or ends."""

_LONGEST_PATIENCE_S = max(_PATIENCE_S.values())
"""With one that answers now this, now that."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """What this agent started. ``log`` is where it writes."""

    pid: int
    log: str


def hosts(endpoint: Endpoint, hosting: Hosting) -> bool:
    """Whether the coordinator of this address is to be started on this machine. May block on the resolver."""
    return hosting is Hosting.HERE or (hosting is Hosting.IF_NAMED and names_this_host(endpoint.host))


def listen_address(endpoint: Endpoint) -> Endpoint:
    """What a coordinator that others know by this address listens on: what it says, or every interface."""
    if is_loopback_name(endpoint.host):
        return Endpoint("127.0.0.1", endpoint.port) if endpoint.host.lower() == "localhost" else endpoint
    return Endpoint("::" if socket.has_dualstack_ipv6() else "0.0.0.0", endpoint.port)


def ensure_coordinator(endpoint: Endpoint, environ: Mapping[str, str] = os.environ) -> Started | None:
    """Have a coordinator at this address of this machine, started by us or not. Blocks until it serves.

    Raises CoordinatorStartError if something else is there, or none can be started.
    """
    listen = listen_address(endpoint)
    places = [endpoint] if is_loopback_name(endpoint.host) else [endpoint, Endpoint("127.0.0.1", endpoint.port)]
    name, idle = grpc_setup.target(endpoint), environ.get(IDLE_VARIABLE) or _IDLE
    failures, patience = 0, _Patience()
    while (answer := who_answers(places)) is not Answer.COORDINATOR:
        if answer is Answer.NOBODY:
            patience = _Patience()
            try:
                started = _start(listen, idle)
            except CoordinatorStartError as error:
                failures += 1
                if failures == _STARTS:
                    raise CoordinatorStartError(f"no coordinator can be started at {name}: {error}") from None
            else:
                _tell(started, listen, idle)
                return started
        elif patience.is_over(answer):
            raise CoordinatorStartError(_stranger(name))
        time.sleep(_LOOK_AGAIN_S)
    logger.info("the coordinator at %s was there already", name)
    return None


class _Patience:
    """With what takes connections and is no coordinator, or not yet."""

    def __init__(self) -> None:
        self._began_s = self._since_s = time.monotonic()
        self._last: Answer | None = None

    def is_over(self, answer: Answer) -> bool:
        """It was this just now."""
        now_s = time.monotonic()
        if answer is not self._last:
            self._last, self._since_s = answer, now_s
        return now_s - self._since_s >= _PATIENCE_S[answer] or now_s - self._began_s >= _LONGEST_PATIENCE_S


def _tell(started: Started, listen: Endpoint, idle: str) -> None:
    logger.info(
        "started a coordinator on this host, listening on %s: pid %d, log in %s; it ends %s after its last agent",
        *(grpc_setup.target(listen), started.pid, started.log, idle),
    )


def _stranger(name: str) -> str:
    what = "is it one with TLS (--tls-ca)? Else choose another port"
    return f"what listens at {name} is no coordinator in plain text: {what}"


def _start(listen: Endpoint, idle: str) -> Started:
    """One that serves. Raises CoordinatorStartError, with its own words, if it ends instead."""
    log_fd, log = _log_file(listen.port)
    try:
        process = subprocess.Popen(
            [sys.executable, *COMMAND, "--insecure", "--listen", grpc_setup.target(listen), "--exit-when-idle", idle],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log_fd,
            env=grpc_setup.scrubbed_environ(),
            cwd="/",  # Ours may be on something that is to be unmounted.
            start_new_session=True,
        )
    finally:
        os.close(log_fd)
    assert process.stdout is not None
    with process.stdout:
        try:
            announced(process)
        except CoordinatorStartError as error:
            process.kill()
            process.wait()
            raise CoordinatorStartError(_last_words(log) or str(error)) from None
    return Started(process.pid, log)


def _log_file(port: int) -> tuple[int, str]:
    """A descriptor, and its name."""
    try:
        return tempfile.mkstemp(prefix=f"coordinator-{port}-", suffix=".log", dir=own_folder())
    except OSError as error:
        logger.warning("the coordinator has no log: %s", error)
        return os.open(os.devnull, os.O_WRONLY), os.devnull


def _last_words(log: str) -> str:
    """What it said last; its file is of no more use then."""
    if log == os.devnull:
        return ""
    lines = Path(log).read_text(errors="replace").splitlines()
    os.unlink(log)
    return lines[-1].removeprefix("rallypoint coordinator: ") if lines else ""
