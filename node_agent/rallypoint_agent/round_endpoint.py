"""Where the workers of the next round can meet: the port that this node offers, and the store there if we host it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from rallypoint.model import Endpoint
from rallypoint_agent.api import WorkerSpec
from rallypoint_agent.core.events import PortHeld
from rallypoint_agent.failed_start import WorkerStartError
from rallypoint_agent.rendezvous_port import HeldPort, hold_port, hold_port_in

if TYPE_CHECKING:
    from rallypoint_agent.torch_store import StoreServer


class RoundEndpoint:
    """``port_range``: of these ports only. ``local_address``: this node's on the way to the coordinator, if known."""

    def __init__(self, spec: WorkerSpec, port_range: range | None, local_address: Callable[[], str | None]) -> None:
        self.store: StoreServer | None = None
        """While it is served here."""
        self._spec = spec
        self._port_range = port_range
        self._local_address = local_address
        self._address = ""
        self._held_port: HeldPort | None = None

    def close(self) -> None:
        self.close_store()
        self._drop_port()

    # --- the store

    def serve_store(self) -> None:
        """Raises WorkerStartError: without their store no worker can begin."""
        # Most jobs have theirs served by rank 0's worker.
        from rallypoint_agent.torch_store import StoreServer

        assert self._held_port is not None, "the round is at the port that was offered"
        try:
            self.store = StoreServer(self._held_port.listen())
        except OSError as error:
            why = error.strerror or str(error)
            raise WorkerStartError(f"cannot serve the store at port {self._held_port.port}: {why}") from error
        self.store.start()

    def close_store(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None

    # --- the port

    def hold(self, offer_id: int) -> PortHeld:
        """Offer another port than before; that it could not be had is an answer too."""
        try:
            return PortHeld(offer_id, self._hold_another())
        except OSError as error:
            asked_for = self._ports_asked_for()
            return PortHeld(offer_id, None, _port_problem(asked_for, error), is_named=bool(asked_for))

    def _hold_another(self) -> Endpoint:
        """Another port than before if there is one: a round may still have stragglers there."""
        wanted = self._spec.master_port
        if wanted is not None:
            self._drop_port()
        held = hold_port_in(self._port_range, self._held_port) if self._port_range else hold_port(wanted)
        self._drop_port()
        self._held_port = held
        return Endpoint(self._own_host(), held.port)

    def _ports_asked_for(self) -> str:
        if self._port_range:
            return f"a port of {self._port_range[0]}-{self._port_range[-1]} (--port-range)"
        wanted = self._spec.master_port
        return "" if wanted is None else f"port {wanted} (--master-port)"

    def _drop_port(self) -> None:
        if self._held_port is not None:
            self._held_port.close()
            self._held_port = None

    def _own_host(self) -> str:
        if named := self._spec.master_addr or self._spec.local_addr:
            return named
        if not self._address:
            self._address = self._local_address() or ""
        return self._address or socket.gethostname()


def _port_problem(asked_for: str, error: OSError) -> str:
    why = error.strerror or str(error)
    if not asked_for:
        return f"no port can be had for the rendezvous: {why}"
    return f"{asked_for} cannot be had for the rendezvous: {why}; free it, or name another one"
