"""What operators change of a live job: its budget, its bounds, its labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from rallypoint.errors import Reason, Refusal
from rallypoint.model import JobSpec, JobState
from rallypoint.texts import counted
from rallypoint_coordinator.core import scaling
from rallypoint_coordinator.core.events import JobChange
from rallypoint_coordinator.core.records import JobUpdated
from rallypoint_coordinator.core.state import Facts
from rallypoint_coordinator.core.step import Step

LABELS_TOLD = 8
"""So many labels are named in what is told of a change."""


def etag_of(facts: Facts) -> str:
    """Stands for all that an update can change. A function of that alone, so a lost journal cannot use one twice."""
    spec, labels = facts.spec, sorted(facts.labels.items())
    content = json.dumps([facts.uid, spec.min_nodes, spec.max_nodes, spec.max_restarts, labels])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def update(step: Step, change: JobChange, by: str, reason: str) -> bool | Refusal:
    """Put other values in force. False if they are so already, whatever the etag: it may be a repeated request."""
    facts, now_ms = step.life.facts, step.stamp.at_ms
    spec, labels = _changed(facts, change)
    told = ", ".join(_differences(facts, spec, labels))
    if not told:
        return False
    refusal = _stale(facts, change) or _refused(facts, spec)
    if refusal is not None:
        return refusal
    gathers_others = facts.state is JobState.GATHERING and spec.min_nodes != facts.spec.min_nodes
    step.record(
        JobUpdated(
            by=by,
            reason=reason,
            min_nodes=spec.min_nodes,
            max_nodes=spec.max_nodes,
            max_restarts=spec.max_restarts,
            labels=labels,
            told=told,
        )
    )
    if gathers_others:
        step.life.watch.gathering_since_ms = now_ms
    elif facts.state is JobState.RUNNING:
        scaling.look_for_arrivals(facts, step.life.watch, now_ms)
    return True


def _changed(facts: Facts, change: JobChange) -> tuple[JobSpec, Mapping[str, str]]:
    before = facts.spec
    spec = replace(
        before,
        min_nodes=before.min_nodes if change.min_nodes is None else change.min_nodes,
        max_nodes=before.max_nodes if change.max_nodes is None else change.max_nodes,
        max_restarts=before.max_restarts if change.max_restarts is None else change.max_restarts,
    )
    return spec, facts.labels if change.labels is None else change.labels


def _differences(facts: Facts, spec: JobSpec, labels: Mapping[str, str]) -> Iterator[str]:
    """What changes, for people."""
    for name in ("min_nodes", "max_nodes", "max_restarts"):
        before, after = getattr(facts.spec, name), getattr(spec, name)
        if before != after:
            yield f"{name} {after}, not {before}"
    names = [name for name in sorted({*facts.labels, *labels}) if facts.labels.get(name) != labels.get(name)]
    for name in names[:LABELS_TOLD]:
        yield f"label {name}={labels[name]}" if name in labels else f"no label {name}"
    if len(names) > LABELS_TOLD:
        yield f"{len(names) - LABELS_TOLD} more labels"


def _stale(facts: Facts, change: JobChange) -> Refusal | None:
    current = etag_of(facts)
    if change.etag in ("", current):
        return None
    return Refusal(
        reason=Reason.ETAG_MISMATCH,
        message=f"job {facts.job} was changed since etag {change.etag}: it is {current} now",
        field="job.etag",
        metadata={"job": facts.job, "etag": change.etag, "current": current},
    )


def _refused(facts: Facts, spec: JobSpec) -> Refusal | None:
    """What depends on the job as it is; the rest was judged at the door."""
    if spec.min_nodes > spec.max_nodes:
        name = "max_nodes" if spec.max_nodes != facts.spec.max_nodes else "min_nodes"
        must = f"min_nodes {spec.min_nodes} is above max_nodes {spec.max_nodes}"
    elif spec.max_restarts < facts.restart_count:
        spent = counted(facts.restart_count, "restart")
        name, must = "max_restarts", f"max_restarts {spec.max_restarts} is below what is spent, {spent}"
    else:
        return None
    field = f"job.spec.{name}"
    return Refusal(
        reason=Reason.INVALID_FIELD,
        message=f"job {facts.job} cannot be changed so: {must}",
        field=field,
        metadata={"job": facts.job, "field": field, "must": must},
    )
