"""A gloo worker: it says where it is, and adds up ranks until the file that it is given exists."""

from __future__ import annotations

import os
import sys
import time

import torch
import torch.distributed as dist

stop_file = sys.argv[1]
dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
total = torch.tensor([float(rank)])
dist.all_reduce(total)
assert total.item() == sum(range(world_size))
store = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
print(f"up: rank {rank} of {world_size} pid {os.getpid()} at {store}", flush=True)
while True:
    end = torch.tensor([float(os.path.exists(stop_file))])
    dist.all_reduce(end, dist.ReduceOp.MAX)
    if end.item():
        break
    time.sleep(0.05)
dist.destroy_process_group()
