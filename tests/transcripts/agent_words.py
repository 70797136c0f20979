"""What an agent's core asks its shell for, in one line each. ``>`` is done, ``=`` is said to whoever watches."""

from __future__ import annotations

import signal

from rallypoint.model import Observed
from rallypoint_agent.core.effects import (
    CloseStore,
    Effect,
    Finish,
    HoldPort,
    KillWorker,
    Leave,
    Reattach,
    Report,
    Say,
    SetFence,
    SetIdentity,
    StartWorkers,
    StopWorkers,
)
from transcripts.language import seconds


def told_effect(effect: Effect) -> str:
    match effect:
        case Say():
            return f"= {effect.message}"
        case Report():
            return f"> report {'(can wait) ' * effect.can_wait}{_observed(effect.observed)}"
        case HoldPort():
            return f"> hold a port, offer {effect.offer_id}"
        case SetIdentity():
            return f"> from now on: life {effect.job_uid or 'none'}, lease {effect.lease_id or 'none'}"
        case Reattach():
            return "> attach anew"
        case StartWorkers(assignment, hosts_store):
            return f"> {'SERVE the store and ' * hosts_store}START the workers of round {assignment.round}"
        case CloseStore():
            return "> close the store"
        case StopWorkers():
            return f"> STOP the workers of round {effect.round}: {_how(effect)}"
        case KillWorker():
            name = signal.Signals(effect.signal).name
            return f"> KILL local rank {effect.local_rank} of round {effect.round} by {name}: {effect.reason}"
        case SetFence():
            return f"> fence: SIGTERM at {seconds(effect.term_at_ms)}, SIGKILL at {seconds(effect.kill_at_ms)}"
        case Leave():
            return f"> say goodbye, {effect.reason}: {effect.message}"
        case Finish():
            return f"> finish, {effect.kind}: {effect.message}"


def _how(effect: StopWorkers) -> str:
    if effect.signal == signal.SIGKILL:
        return "SIGKILL at once"
    name = signal.Signals(effect.signal).name if effect.signal is not None else "SIGTERM"
    return f"{name}, SIGKILL after {seconds(effect.grace_ms)}"


def _observed(observed: Observed) -> str:
    parts = [f"{observed.phase}, seen {observed.version.epoch}.{observed.version.revision}"]
    if observed.round >= 0:
        parts.append(f"round {observed.round}")
    if observed.fenced:
        parts.append("fenced")
    if observed.failures:
        parts.append(f"{len(observed.failures)} failed")
    parts.append(f"offer {observed.offer.offer_id}" if observed.offer is not None else "no offer")
    if observed.unsupported_version.revision:
        parts.append(f"does not know {observed.unsupported_version.epoch}.{observed.unsupported_version.revision}")
    return ", ".join(parts)
