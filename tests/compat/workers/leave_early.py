"""A gloo job whose rank 0 leaves early; the others go on with the store once FILE exists. At first rank 1 fails."""

import os
import sys
import time

import torch
import torch.distributed as dist

assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "True"
dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
total = torch.tensor([float(rank)])
dist.all_reduce(total)
assert total.item() == sum(range(world_size))
store = dist.distributed_c10d._get_default_store()
arrived = store.add("arrived", 1)
assert arrived <= world_size, "the store of an earlier round is still there"
port = os.environ["MASTER_PORT"]
print(f"restart {os.environ['TORCHELASTIC_RESTART_COUNT']} rank {rank} port {port}", flush=True)
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and rank == 1:
    sys.exit(3)
store.barrier("all", world_size)
if rank > 0:
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.05)
    store.set(f"late/{rank}", "1")
    store.wait([f"late/{other}" for other in range(1, world_size)])
    print(f"rank {rank} met the others without rank 0", flush=True)
os._exit(0)
