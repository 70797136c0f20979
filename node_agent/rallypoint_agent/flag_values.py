"""The value that a flag's text stands for. Every reader raises ValueError, with what it must be."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from rallypoint.durations import duration_ms, timeout_ms
from rallypoint.endpoints import parse_endpoint
from rallypoint.limits import INT32_MAX, LOCAL_WORLD_SIZE_MAX
from rallypoint.model import Endpoint, ScaleUp
from rallypoint_agent.signals import UNHANDLED

if TYPE_CHECKING:
    from rallypoint_agent.numa import AffinityMode

MAX_MONITOR_INTERVAL_MS = 3_600_000

_MAX_DIGITS = 18


def text(given: str) -> str:
    """What others are told: it has to fit into a protobuf."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError("it must be UTF-8") from None
    return given


def path(given: str) -> str:
    return given


def truth(given: str) -> bool:
    """A switch's variable: torchrun takes 0 and 1."""
    if given not in ("0", "1"):
        raise ValueError("it must be 0 or 1")
    return given == "1"


def whole(given: str) -> int:
    if not re.fullmatch(r"[0-9]+", given):
        raise ValueError("it must be a whole number, 0 or more")
    return _number(given)


def _number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it must have at most {_MAX_DIGITS} digits")
    return int(digits)


def monitor_interval(given: str) -> float:
    """In seconds."""
    value = timeout_ms(given)
    if value > MAX_MONITOR_INTERVAL_MS:
        raise ValueError("it must be at most 1h")
    return value / 1000


def nodes(given: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]+)(?::([0-9]+))?", given)
    if found is None:
        raise ValueError("it must be N or MIN:MAX")
    low, high = _number(found[1]), _number(found[2] or found[1])
    if low < 1:
        raise ValueError("at least one node is needed")
    if low > high:
        raise ValueError("the minimum is above the maximum")
    return low, high


def node_rank(given: str) -> int:
    rank = whole(given)
    if rank > INT32_MAX:
        raise ValueError(f"it must be 0 to {INT32_MAX:,}")
    return rank


def local_ranks(given: str) -> frozenset[int]:
    """Local ranks; one that this node does not have is no error, since nodes may differ."""
    if not given:
        return frozenset()
    try:
        return frozenset(whole(item.strip()) for item in given.split(","))
    except ValueError:
        raise ValueError("it must be a list of local ranks, as in 0,1,2") from None


def texts(given: str) -> tuple[str, ...]:
    """Separated by commas; two commas are one that belongs to a text. Empty ones mean nothing."""
    parts = given.replace(",,", "\0").split(",")
    return tuple(part.replace("\0", ",") for part in parts if part)


def endpoints(given: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(*parse_endpoint(item)) for item in given.split(","))


def meeting_endpoints(given: str) -> tuple[Endpoint, ...]:
    """The same, but for torchrun's port 0, which is any free one."""
    return tuple(Endpoint(*parse_endpoint(item, least_port=0)) for item in given.split(","))


def port(given: str) -> int:
    number = whole(given)
    if not 1 <= number <= 65535:
        raise ValueError("a port must be 1 to 65535")
    return number


def port_range(given: str) -> range:
    """From LOW-HIGH, both included."""
    low, dash, high = given.partition("-")
    if not dash:
        raise ValueError("it must be LOW-HIGH, as in 29500-29599")
    ports = range(port(low), port(high) + 1)
    if not ports:
        raise ValueError("the first port is above the last")
    return ports


def scale_up(given: str) -> tuple[ScaleUp, int]:
    when, _, delay = given.partition("=")
    if when == "after" and delay:
        return ScaleUp.AFTER, duration_ms(delay)
    by_name = {"immediate": ScaleUp.IMMEDIATE, "on-restart": ScaleUp.ON_RESTART}
    if given not in by_name:
        raise ValueError("it must be immediate, on-restart or after=TIME")
    return by_name[given], 0


def rdzv_backend(given: str) -> str:
    """torchrun's name for how nodes meet. Here they meet at the coordinator; it tells who starts that."""
    if given.startswith("etcd"):
        raise ValueError("there is no etcd here: give --rdzv-endpoint the coordinator's address, and no --rdzv-backend")
    return _one_of(given, "c10d", "static", "rallypoint")


def start_method(given: str) -> str:
    """How torchrun starts a function. A script is a program of its own, however it is started."""
    return _one_of(given, "spawn", "fork", "forkserver")


def _one_of(given: str, *names: str) -> str:
    if given not in names:
        raise ValueError(f"it must be one of {', '.join(names)}")
    return given


def numa_binding(given: str) -> AffinityMode:
    from rallypoint_agent.numa import AffinityMode

    return AffinityMode(_one_of(given, *AffinityMode))


def signal_names(given: str) -> str:
    """Names by commas. As with torchrun, an unknown one is said when the agent starts, and left out."""
    for name in UNHANDLED:
        if name in map(str.strip, given.split(",")):
            raise ValueError(f"{name} cannot be handled by any process")
    return given


def exit_codes(given: str) -> tuple[int, ...]:
    codes = sorted({whole(item.strip()) for item in given.split(",")})
    if not all(1 <= code <= 255 for code in codes):
        raise ValueError("an exit code that can mean a failure is 1 to 255")
    return tuple(codes)


def workers(given: str) -> int:
    """As torchrun's --nproc-per-node, of devices as their driver shows them."""
    if given in ("cpu", "auto", "gpu", "xpu"):
        return _devices(given)
    if not re.fullmatch(r"[0-9]+", given):
        raise ValueError("it must be a number, gpu, xpu, cpu or auto")
    if not 1 <= _number(given) <= LOCAL_WORLD_SIZE_MAX:
        raise ValueError(f"it must be 1 to {LOCAL_WORLD_SIZE_MAX}")
    return _number(given)


def _devices(kind: str) -> int:
    from rallypoint_agent.accelerators import gpu_count, xpu_count

    if kind == "gpu":
        if count := gpu_count():
            return count
        raise ValueError("no NVIDIA GPU is visible on this node")
    if kind == "xpu":
        if count := xpu_count():
            return count
        raise ValueError("Level Zero shows no Intel GPU on this node")
    return _cpus() if kind == "cpu" else gpu_count() or xpu_count() or _cpus()


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
