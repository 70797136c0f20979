"""What the protocol's fields are called on the command line."""

from __future__ import annotations

import re
from dataclasses import replace

from rallypoint.errors import Reason, Refusal

_FLAGS = {
    "job": "--rdzv-id",
    "node": "--node-name",
    "min_nodes": "--nnodes",
    "max_nodes": "--nnodes",
    "local_world_size": "--nproc-per-node",
    "scale_up_delay": "--scale-up",
    "store_host": "--rdzv-conf store",
}
_WITHOUT_FLAG = frozenset({"fence_grace"})
_PARTS = {"min_nodes": "the minimum of ", "max_nodes": "the maximum of ", "scale_up_delay": "the time of "}
"""Of the flags that fill several fields."""


def flag_of(field: str) -> str:
    """The flag that fills a field, which may be given by its path in the request."""
    name = field.rpartition(".")[2]
    return name if name in _WITHOUT_FLAG else _FLAGS.get(name, f"--{name.replace('_', '-')}")


def in_flags(refusal: Refusal) -> Refusal:
    """The same refusal, in words of whoever gave the flags: it is they who can do something about it."""
    if refusal.reason is not Reason.SPEC_MISMATCH or not {"field", "job", "agent"} <= refusal.metadata.keys():
        return refusal
    field = refusal.metadata["field"]
    job, agent = (_value(field, refusal.metadata[whose]) for whose in ("job", "agent"))
    name = field.removesuffix("_ms")
    what = f"{_PARTS.get(name, '')}{flag_of(name)}"
    told = f"{what} is {job} in the job and {agent} here: all agents of a job must agree"
    if in_force := refusal.metadata.get("in_force"):
        told = (
            f"the job's agents agreed on {job} for {what}, and it is {agent} here: give this one theirs; that the job"
            f" was changed to {_value(field, in_force)} since counts for it as well"
        )
    held = f"; {refusal.metadata['held']}" if "held" in refusal.metadata else ""
    return replace(refusal, message=f"{told}{held}")


def _value(field: str, text: str) -> str:
    """A JobSpec's value as its flag spells it, from how the coordinator shows it."""
    if field.endswith("_ms") and re.fullmatch(r"[0-9]{1,15}", text):
        return f"{int(text) / 1000:.15g}s"
    if field == "no_restart_exit_codes":
        return ",".join(re.findall(r"[0-9]+", text)) or "none"
    return text.lower().replace("_", "-") if field in ("scale_up", "store_host") else text
