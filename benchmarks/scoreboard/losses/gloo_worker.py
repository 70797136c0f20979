"""A gloo worker that adds up numbers for ever: it says when it began, and once its world works.

What it says goes to the socket BIRTHS, see inbox.py.
"""

import json
import os
import socket
import time

OUT = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
STEPS = 20


def say(word: str) -> None:
    env = os.environ
    said = {
        "word": word,
        "node": env["NODE"],
        "pid": os.getpid(),
        "rank": int(env["RANK"]),
        "restart_count": int(env["TORCHELASTIC_RESTART_COUNT"]),
    }
    OUT.sendto(json.dumps(said).encode(), env["BIRTHS"])


say("began")

import torch  # noqa: E402  so that "began" does not wait for it
import torch.distributed as dist  # noqa: E402

torch.set_num_threads(1)
dist.init_process_group("gloo")
total = torch.zeros(1)
step = 0
while True:
    total.fill_(dist.get_rank())
    dist.all_reduce(total)
    assert total.item() == sum(range(dist.get_world_size()))
    step += 1
    if step == STEPS:
        say("works")
    elif step > STEPS:
        time.sleep(0.02)  # the cores are for whoever starts
