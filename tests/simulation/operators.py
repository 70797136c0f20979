"""People at the command line: they look at jobs, cancel, restart and drain at any time, and mistype names."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from rallypoint.errors import Refusal
from rallypoint.v1.job_service_pb2 import GetJobRequest, GetJobResponse
from rallypoint_coordinator.core.events import JobChange, OperatorAsked, Request
from rallypoint_coordinator.server.job_servicer import get_job
from simulation.coordinator_host import CoordinatorHost
from simulation.options import JobOptions, RequestKind
from simulation.setting import Setting
from simulation.world import Chance

FIRST_REQUEST_MS = 1_000
MISTYPED_CHANCE = 0.1
TWICE_CHANCE = 0.2
SECOND_MS = (0, 5_000)
CANCELS_MAX = 2
HOLD_MS = (500, 60_000)
CHANGED_CHANCE = 0.5
RESTARTS_MOST = 6

REQUESTS = {
    RequestKind.CANCEL: Request.CANCEL,
    RequestKind.RESTART: Request.RESTART,
    RequestKind.DRAIN: Request.DRAIN,
    RequestKind.UPDATE: Request.UPDATE,
    RequestKind.HOLD: Request.HOLD,
    RequestKind.RELEASE: Request.RELEASE,
}


class Operators:
    """They have a path of their own, which no fault touches. ``asked`` counts what they did."""

    def __init__(self, setting: Setting, host: CoordinatorHost) -> None:
        self.asked: Counter[RequestKind] = Counter()
        self._etags: dict[str, str] = {}
        self._world = setting.world
        self._network = setting.network
        self._oracle = setting.oracles.operators
        self._journal = setting.oracles.journal
        self._phases = setting.oracles.phases
        self._options = setting.options
        self._workload = setting.workload
        self._host = host
        self._path = setting.network.new_path("10.255.0.1")
        self._chances = {kind: setting.world.chance(f"request/{kind}") for kind in RequestKind}

    def begin(self) -> None:
        for kind in self._options.request_weights:
            self._next(kind)

    def _next(self, kind: RequestKind) -> None:
        gap_ms = self._options.request_gap_ms / self._options.request_weights[kind]
        delay_ms = FIRST_REQUEST_MS + int(self._chances[kind].expovariate(1 / gap_ms))
        self._world.after(delay_ms, partial(self._act, kind))

    def _act(self, kind: RequestKind) -> None:
        if self._workload.healed and kind is not RequestKind.LOOK:
            return
        chance = self._chances[kind]
        job = chance.choice(self._options.jobs)
        if kind is RequestKind.LOOK:
            self._look(job)
        elif kind is not RequestKind.CANCEL or self.asked[kind] < CANCELS_MAX:
            self._ask(kind, job)
        self._next(kind)

    # --- to look

    def _look(self, job: JobOptions) -> None:
        self.asked[RequestKind.LOOK] += 1
        self._host.read(get_job(GetJobRequest(name=f"jobs/{job.name}")), self._seen)

    def _seen(self, answer: GetJobResponse | Refusal) -> None:
        if isinstance(answer, GetJobResponse):
            self._etags[answer.job.name.removeprefix("jobs/")] = answer.job.etag
            self._oracle.seen(answer.job, self._journal.revision)
            self._phases.shown(answer)

    # --- to ask for something

    def _ask(self, kind: RequestKind, job: JobOptions) -> None:
        chance = self._chances[kind]
        name = "no-such-job" if chance.happens(MISTYPED_CHANCE) else job.name
        node = f"node-{chance.between(0, len(job.nodes))}" if kind is RequestKind.DRAIN else ""
        request = OperatorAsked(call=0, job=name, request=REQUESTS[kind], by="", reason="simulated", node=node)
        if kind is RequestKind.UPDATE:
            request = replace(request, change=self._change(job, chance))
        elif kind is RequestKind.HOLD:
            request = replace(request, hold_ms=chance.between(*HOLD_MS))
        self._send(kind, request)
        if chance.happens(TWICE_CHANCE):
            self._world.after(chance.between(*SECOND_MS), partial(self._send, kind, request))

    def _change(self, job: JobOptions, chance: Chance) -> JobChange:
        """Some of what can be changed; of the job as it was seen last, or whatever it is."""
        asked = {
            "min_nodes": chance.between(1, job.spec.min_nodes),
            "max_nodes": chance.between(1, len(job.nodes) + 1),
            "max_restarts": chance.between(0, RESTARTS_MOST),
        }
        changes = {name: value for name, value in asked.items() if chance.happens(CHANGED_CHANCE)}
        labels = {"shift": str(chance.between(1, 3))} if chance.happens(CHANGED_CHANCE) else None
        etag = self._etags.get(job.name, "") if chance.happens(CHANGED_CHANCE) else ""
        return JobChange(**changes, labels=labels, etag=etag)

    def _send(self, kind: RequestKind, asked: OperatorAsked) -> None:
        self.asked[kind] += 1
        by = f"{kind} {self.asked[kind]}"
        request = replace(asked, by=by)
        self._world.tell("!", "operator", request)
        self._oracle.asked(request)
        self._network.call(self._path, request, partial(self._answered, by))

    def _answered(self, by: str, answer: bool | Refusal | None) -> None:
        self._world.tell("<", "operator", f"{by}: {answer.reason if isinstance(answer, Refusal) else answer}")
        self._oracle.answered(by, answer, {job.name for job in self._options.jobs})
