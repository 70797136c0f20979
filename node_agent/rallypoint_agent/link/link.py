"""The main thread's side of the link."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections.abc import Callable

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Observed, WatchdogStatus
from rallypoint_agent import grpc_setup
from rallypoint_agent.core.effects import Leave
from rallypoint_agent.core.events import AttachRefused, Event
from rallypoint_agent.link.addresses import local_address_towards
from rallypoint_agent.link.config import LinkConfig
from rallypoint_agent.link.mailbox import Mailbox
from rallypoint_agent.link.wishes import Identity, Wishes

_FAULT_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}

logger = logging.getLogger(__name__)


class Link:
    """Attaches, renews the lease, reports, and hands on what the coordinator says.

    Everything here is for one thread, the main one, and returns at once unless it says otherwise.
    Every stream that was welcomed gives one Attached and, once it ended, one Detached.
    """

    def __init__(self, config: LinkConfig) -> None:
        self._config = config
        self._wishes = Wishes()
        self._mailbox = Mailbox()
        self._left = False
        self._released = False
        # A daemon, so that a process that ends without close() ends.
        self._thread = threading.Thread(target=self._run, name="rallypoint-link", daemon=True)

    def start(self) -> None:
        """Attach now, and again whenever the stream breaks, until told otherwise."""
        grpc_setup.prepare_environment()
        self._thread.start()

    def fileno(self) -> int:
        """A descriptor that is readable when events wait or ``left`` became True."""
        return self._mailbox.fileno()

    def events(self) -> list[Event]:
        """What happened since the last call."""
        return self._mailbox.drain()

    def report(self, observed: Observed, *, can_wait: bool = False) -> None:
        """Send this, now and in every Hello, unless it is what was sent last.

        ``can_wait``: not now, but in place of the next heartbeat; unless an earlier report is still to be sent that
        could not wait.
        """
        self._wishes.report(observed, can_wait=can_wait)

    def watchdog(self, status: WatchdogStatus) -> None:
        """What the heartbeats say from now on of the file timer's watchdog."""
        self._wishes.watchdog = status

    def set_identity(self, cluster_id: str, job_uid: str, lease_id: int) -> None:
        """What later Hellos carry, until the next Welcome. A stream keeps the lease of its own."""
        self._wishes.identity = Identity(cluster_id, job_uid, lease_id)

    def reattach(self) -> None:
        """Drop the stream, if there is one, and attach again without delay.

        The only way out after LeaseStaleReceived and after a final AttachRefused.
        """
        self._wishes.reattach()

    def alive_until(self, boot_ms: int) -> None:
        """The main loop's pulse: past this instant of CLOCK_BOOTTIME nothing is sent.

        No heartbeat, no report, no Hello: each renews the lease, and a main loop that hangs must
        not keep one. Before the first pulse there is no limit.
        """
        self._wishes.alive_until(boot_ms)

    def leave(self, reason: str, message: str) -> None:
        """Say Goodbye on the stream there is, after the last report that cannot wait, and attach no more."""
        self._wishes.wish_leave(Leave(reason, message))

    @property
    def left(self) -> bool:
        """Whether the link is at its end: the Goodbye was acknowledged or cannot be said."""
        return self._left

    def get_run_id(self) -> str:
        """The job's name."""
        return self._config.job

    def get_backend(self) -> str:
        """What torch calls a kind of rendezvous."""
        return "rallypoint"

    @property
    def released(self) -> bool:
        """Whether the Goodbye was acknowledged: the lease is given back, and nobody waits for it to run out."""
        return self._released

    def local_address(self) -> str | None:
        """This machine's address on the route to the coordinator, for MASTER_ADDR.

        It works whether or not the coordinator is up. May block on the resolver; None if no
        endpoint resolves to an address that there is a route to.
        """
        found = (local_address_towards(endpoint) for endpoint in self._config.endpoints)
        return next(filter(None, found), None)

    def close(self, timeout: float = 2.0) -> None:
        """End the thread and its connection without a Goodbye; blocks for at most ``timeout`` s."""
        self._wishes.close()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            logger.warning("the link's thread did not end within %g s", timeout)
        else:
            self._mailbox.close()

    def _run(self) -> None:
        # The threads that gRPC starts from here inherit this. So signals end up in the main thread,
        # and wake it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULT_SIGNALS)
        try:
            self._released = _import_attacher()(self._config, self._wishes, self._mailbox)
        except BaseException as error:
            logger.exception("the link failed")
            self._mailbox.put(AttachRefused(_unusable(error)))
        finally:
            self._left = True
            self._mailbox.wake()


def _import_attacher() -> Callable[[LinkConfig, Wishes, Mailbox], bool]:
    """The import takes longer than all the rest. In this thread, the main thread starts meanwhile."""
    # What is imported stays: there is nothing to collect until it is.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        from rallypoint_agent.link.attacher import keep_attached
    finally:
        if is_collecting:
            gc.enable()
    return keep_attached


def _unusable(error: BaseException) -> Refusal:
    """What stands in for the coordinator's answer when we cannot even ask. It is final."""
    return Refusal(
        reason=Reason.UNSUPPORTED_VERSION,
        message=f"the link to the coordinator cannot run here: {error!r}",
    )
