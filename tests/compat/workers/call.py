"""A worker of torch's RPC framework: each rank calls the next.

In round 0 rank 1 then fails. In round 1 all meet once more, in a store of the script's own.
"""

from __future__ import annotations

import functools
import os
import socket
import sys

import torch
import torch.distributed as dist
import torch.distributed.rpc as rpc

ROUND, RANK, WORLD_SIZE = (int(os.environ[name]) for name in ("RALLYPOINT_ROUND", "RANK", "WORLD_SIZE"))


def who(caller: int) -> tuple[int, int, int]:
    return caller, RANK, ROUND


@functools.cache
def private_port() -> int:
    """A port that is free where this is called."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


rpc.init_rpc(f"worker{RANK}", rank=RANK, world_size=WORLD_SIZE)
callee = (RANK + 1) % WORLD_SIZE
assert rpc.rpc_sync(f"worker{callee}", who, (RANK,)) == (RANK, callee, ROUND)
print(f"rank {RANK} has called rank {callee} in round {ROUND}", flush=True)
if ROUND == 0 and RANK == 1:
    sys.exit(3)
port = rpc.rpc_sync("worker0", private_port)
rpc.shutdown()
dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=RANK, world_size=WORLD_SIZE)
total = torch.tensor([1.0])
dist.all_reduce(total)
print(f"rank {RANK} counts {total.item():g} at a port of its own", flush=True)
dist.destroy_process_group()
