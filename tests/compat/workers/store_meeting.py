"""One of three clients in processes of their own, that wait for one another: PORT RANK."""

import sys
from datetime import timedelta

from torch.distributed import TCPStore

port, rank = map(int, sys.argv[1:])
store = TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60))
store.barrier("met", 3)
if rank == 0:
    for item in ("a", "b"):
        store.queue_push("work", item)
    mine = b"-"
else:
    mine = store.queue_pop("work")
store.set(f"done/{rank}", mine)
store.wait([f"done/{other}" for other in range(3)])
print(sorted(store.multi_get([f"done/{other}" for other in range(3)])))
