"""Texts that stand for something: durations, endpoints, ports, mappings, page and watch tokens, names of resources.

The first byte of an input chooses the reader. It gives a value, or says in a sentence why it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from fuzz.mutate import WORDS, mutated
from fuzz.target import Target, is_a_sentence
from rallypoint import durations, endpoints
from rallypoint.errors import RefusedError
from rallypoint.validation import JOB_NAME, NODE_NAME
from rallypoint_agent import flag_values, rdzv_conf
from rallypoint_agent.logs import Std
from rallypoint_agent.torch import conf
from rallypoint_agent.uninterruptible import timeout_s
from rallypoint_coordinator.security.quotas import peer_key
from rallypoint_coordinator.security.tokens import parse_roles
from rallypoint_coordinator.server.job_names import parse_job, parse_node
from rallypoint_coordinator.server.job_servicer import parse_number
from rallypoint_coordinator.server.options import parse_address
from rallypoint_coordinator.server.pages import next_page_token, page_start
from rallypoint_coordinator.server.watch_tokens import WatchToken, parse_watch_token

Reader = Callable[[str], Any]

_PAGE = next_page_token("jobs/train/nodes", "node-1")
_WATCH = str(WatchToken("0" * 32, "1" * 32, 17, 2**63))


def _conf(text: str) -> None:
    """What torchrun makes of --rdzv-conf: texts by texts."""
    pairs = dict(item.partition("=")[::2] for item in text.split(","))
    conf.job_spec(1, 2, pairs)
    conf.connect_timeout_ms(pairs)


READERS: tuple[tuple[Reader, tuple[str, ...]], ...] = (
    (durations.duration_ms, ("30s", "1.5m", "500ms", "8760h")),
    (durations.timeout_ms, ("30", "0.4ms")),
    (endpoints.parse_endpoint, ("head:29400", "[fe80::1%eth0]:1", "10.0.0.1")),
    (flag_values.endpoints, ("a:1,b:2", "[::1]:65535")),
    (flag_values.meeting_endpoints, ("localhost:0",)),
    (flag_values.nodes, ("1:4", "2")),
    (flag_values.workers, ("8", "cpu", "auto")),
    (flag_values.port_range, ("29500-29599",)),
    (flag_values.exit_codes, ("1,2, 255",)),
    (flag_values.scale_up, ("after=30s", "immediate")),
    (flag_values.local_ranks, ("0,1,2",)),
    (flag_values.signal_names, ("SIGTERM,SIGUSR1",)),
    (flag_values.texts, ("loss,,=,step",)),
    (flag_values.monitor_interval, ("0.1", "1h")),
    (flag_values.node_rank, ("7",)),
    (flag_values.numa_binding, ("core-complex",)),
    (flag_values.text, ("me",)),
    (Std.from_str, ("3", "0:1,12:3")),
    (rdzv_conf.read, ("store=agent,join_timeout=600,is_host=1", "timeout=900")),
    (_conf, ("lease_ttl=60s,scale_up=on-restart,max_restarts=3", "join_timeout=10m,rank=0")),
    (parse_address, ("0.0.0.0:29400", "[::1]:0")),
    (parse_roles, ("read,operator",)),
    (JOB_NAME.holds, ("train-7.a_b",)),
    (NODE_NAME.holds, ("node-1",)),
    (peer_key, ("10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1")),
    (lambda text: parse_job(text, "name"), ("jobs/train",)),
    (lambda text: parse_node(text, "name"), ("jobs/train/nodes/node-1",)),
    (lambda text: parse_number(page_start("jobs/train/workers", text), -1), (_PAGE, _PAGE[:-4])),
    (lambda text: page_start("jobs/train/nodes", text), (_PAGE,)),
    (parse_watch_token, (_WATCH,)),
    (lambda text: timeout_s(None, {"TORCHELASTIC_UNINTERRUPTIBLE_STATE_TIMEOUT": text}), ("30", "inf", "-1")),
)


def check(data: bytes) -> None:
    if not data:
        return
    read, _ = READERS[data[0] % len(READERS)]
    # As a command line or an environment has what is no UTF-8.
    text = data[1:].decode(errors="surrogateescape")
    try:
        read(text)
    except ValueError as error:
        is_a_sentence(str(error), "a refusal")
    except RefusedError as error:
        is_a_sentence(error.refusal.message, "a refusal")


def generate(rng: Random) -> bytes:
    number = rng.randrange(len(READERS))
    seeds = [text.encode() for text in READERS[number][1]]
    return bytes([number]) + mutated(rng, seeds, WORDS)


TARGET = Target(check=check, generate=generate)
