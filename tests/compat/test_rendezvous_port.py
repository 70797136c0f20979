"""torch's own store on a port that the agent holds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rallypoint_agent.rendezvous_port import hold_port

distributed = pytest.importorskip("torch.distributed")


@pytest.mark.parametrize("use_libuv", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tcp_store_listens_over_a_held_port(host: str, use_libuv: bool) -> None:
    timeout = timedelta(seconds=10)
    held = hold_port()
    server = distributed.TCPStore(
        host, held.port, is_master=True, wait_for_workers=False, timeout=timeout, use_libuv=use_libuv
    )
    client = distributed.TCPStore(
        host, held.port, is_master=False, wait_for_workers=False, timeout=timeout, use_libuv=use_libuv
    )
    client.set("key", "value")
    assert server.get("key") == b"value"
    assert server.port == held.port
    del client, server
    held.close()
