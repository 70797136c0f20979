"""Jobs share nothing: each, alone in a coordinator that hears of no other, decides and says exactly the same.

For every job another cluster is stepped with what concerns that job, with the same stamps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.effects import Answer, Effect, Explain, Output
from rallypoint_coordinator.core.events import (
    AgentAttached,
    Event,
    GoneReported,
    OperatorAsked,
    Stamp,
    TimeAdvanced,
)
from rallypoint_coordinator.core.records import Entry, LifeForgotten, StateLost
from simulation.world import Violation


class AloneOracle:
    """Costs as much again as the coordinator itself, so a single job is spared it."""

    def __init__(self, jobs: Iterable[str]) -> None:
        self._names = tuple(jobs)
        self._clusters: dict[str, Cluster] = {}
        self._job_of_stream: dict[int, str] = {}

    def epoch_begins(self, entries: Iterable[tuple[int, Entry]]) -> None:
        """Every record ever, as each job alone would have written it."""
        self._job_of_stream.clear()
        if len(self._names) < 2:
            return
        self._clusters = {name: Cluster() for name in self._names}
        for revision, entry in entries:
            for cluster in self._concerned(entry.job):
                cluster.apply(entry, revision)

    def started(self, output: Output, stamp: Stamp, fresh_cluster_id: str) -> None:
        for name in list(self._clusters):
            alone = self._clusters[name].start(stamp, fresh_cluster_id)
            own = [entry for entry in output.records if entry.job in ("", name)]
            if [entry.record for entry in alone.records] != [entry.record for entry in own]:
                raise Violation("JOBS", f"{name} alone starts with {alone.records}, beside others with {own}")
            if output.records[: len(own)] != own:
                del self._clusters[name]  # its records have other revisions here: wait for the next epoch

    def stepped(self, event: Event, stamp: Stamp, output: Output) -> None:
        if any(isinstance(entry.record, StateLost) for entry in output.records):
            self._clusters.clear()  # one job's agent tells it for all: wait for the next epoch
        if not self._clusters:
            return
        if isinstance(event, AgentAttached):
            self._job_of_stream[event.stream] = event.hello.job
        if isinstance(event, TimeAdvanced):
            for name in list(self._clusters):
                self._must_agree(name, event, stamp, output)
            self._forbid_others(output, set(self._names))
        else:
            name = self._job_of(event)
            if name in self._clusters:
                self._must_agree(name, event, stamp, output)
            self._forbid_others(output, {name})

    def retained(self, output: Output, stamp: Stamp) -> None:
        """What is forgotten is a matter of all jobs together."""
        for revision, entry in enumerate(output.records, stamp.revision + 1):
            for cluster in self._concerned(entry.job):
                cluster.apply(entry, revision)

    def _must_agree(self, name: str, event: Event, stamp: Stamp, output: Output) -> None:
        own = [entry for entry in output.records if entry.job == name]
        before = output.records.index(own[0]) if own else 0
        if output.records[before : before + len(own)] != own:
            # Two lives of the job, and another's between them: its records have other revisions here.
            del self._clusters[name]
            return
        alone = self._clusters[name].step(event, _later(stamp, before))
        forgotten = [entry for entry in own if isinstance(entry.record, LifeForgotten)]
        if alone.records != own and not forgotten:
            raise Violation("JOBS", f"{name} alone decides {alone.records}, beside others {own}")
        effects = [effect for effect in output.effects if self._job_of_effect(effect, event) == name]
        if alone.effects != effects:
            raise Violation("JOBS", f"{name} alone says {alone.effects}, beside others {effects}")

    def _forbid_others(self, output: Output, names: set[str]) -> None:
        strangers = [entry for entry in output.records if entry.job not in names]
        if any(not isinstance(entry.record, LifeForgotten) for entry in strangers):
            raise Violation("JOBS", f"what concerns {names} leads to {strangers}")

    def _job_of(self, event: Event) -> str:
        if isinstance(event, AgentAttached):
            return event.hello.job
        if isinstance(event, GoneReported | OperatorAsked):
            return event.job
        return "" if isinstance(event, TimeAdvanced) else self._job_of_stream.get(event.stream, "")

    def _job_of_effect(self, effect: Effect, event: Event) -> str:
        if isinstance(effect, Explain):
            return effect.job
        return self._job_of(event) if isinstance(effect, Answer) else self._job_of_stream.get(effect.stream, "")

    def _concerned(self, job: str) -> list[Cluster]:
        return [cluster for name, cluster in self._clusters.items() if job in ("", name)]


def _later(stamp: Stamp, records: int) -> Stamp:
    """After what other jobs decided in the same step."""
    return replace(stamp, revision=stamp.revision + records)
