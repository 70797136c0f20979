"""All faults: a phase of the job, a blow that strikes in it, and what that must cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass

from chaos import blows, partitions
from chaos import scene as phases
from chaos.blows import Blow
from chaos.fleet import Health, Wrong
from chaos.scene import Scene

Phase = Callable[[Scene], AbstractContextManager[None]]


NONE = range(1)
ONE = range(1, 2)
TWO = range(2, 3)
SOME = range(1, 100)
ANY = range(100)


@dataclass(frozen=True)
class Fault:
    """``charged``: the restarts it spends. ``rounds``: how many begin because of it; with NONE the workers go on.

    A short stop that, on a busy machine, took too long may lead to more.
    """

    phase: Phase
    what: str
    blow: Blow
    _: KW_ONLY
    charged: int = 0
    rounds: range = SOME
    slow: bool = False
    """Whether a lease has to run out."""
    needs_network: bool = False

    @property
    def name(self) -> str:
        return f"{self.what}, {self.phase.__name__}"

    def play(self, scene: Scene) -> None:
        """Strike, mend, wait until the cluster is at rest again, and see what it cost."""
        with self.phase(scene):
            mend = self.blow(scene)
        mend()
        self._check(scene, scene.before, scene.fleet.wait_healthy())

    def _check(self, scene: Scene, before: Health, after: Health) -> None:
        spent = after.restart_count - before.restart_count
        if spent != self.charged:
            raise Wrong(f"{self.name} spent {spent} restarts instead of {self.charged}")
        if scene.was_short and after.round - before.round not in self.rounds:
            raise Wrong(f"{self.name} led from round {before.round} to round {after.round}")
        if after.round == before.round and (after.pids, after.keepers) != (before.pids, before.keepers):
            raise Wrong(f"{self.name} changed processes within a round: {before} before, {after} after")
        if wrong := scene.fleet.lives.check():
            raise Wrong("; ".join(wrong))


OUTLIVED: Mapping[str, Blow] = {
    "coordinator SIGKILL": blows.kill_coordinator,
    "coordinator SIGTERM": blows.stop_and_start_coordinator,
    "coordinator SIGSTOP briefly": blows.freeze_coordinator_briefly,
    "agent SIGSTOP briefly": blows.freeze_agent_briefly,
    "keeper SIGSTOP briefly": blows.freeze_keeper_briefly,
    "worker SIGSTOP briefly": blows.freeze_worker_briefly,
}
"""The workers of a round that runs go on."""

FREE: Mapping[str, Blow] = {
    "agent SIGKILL": blows.kill_agent,
    "agent SIGTERM": blows.end_agent,
    "agent and coordinator SIGKILL": blows.kill_agent_and_coordinator,
}
"""A new round, and no restart is spent: a node more or less."""

FAILURES: Mapping[str, Blow] = {"keeper SIGKILL": blows.kill_keeper, "worker SIGKILL": blows.kill_worker}
"""A restart is spent if workers ran, and had not been told to end."""

PARTITIONS: Mapping[str, Blow] = {
    "link down": partitions.unplug,
    "coordinator partitioned from all": partitions.isolate_coordinator,
    **{f"partition {direction}": partitions.part(direction) for direction in partitions.DIRECTIONS},
}
"""Leases run out, so a new round, and no restart is spent."""


def _faults() -> Iterator[Fault]:
    running = phases.running
    for phase in (running, phases.starting, phases.stopping, phases.gathering):
        yield from _faults_in(phase)
    yield Fault(running, "two workers SIGKILL", blows.kill_two_workers, charged=1, rounds=ONE)
    yield Fault(running, "coordinator SIGSTOP past the lease", blows.freeze_coordinator, slow=True)
    yield Fault(running, "keeper SIGSTOP past the lease", blows.freeze_keeper, rounds=NONE, slow=True)
    yield Fault(running, "worker SIGSTOP past the lease", blows.freeze_worker, rounds=NONE, slow=True)
    for name, blow in PARTITIONS.items():
        yield Fault(running, name, blow, slow=True, needs_network=True)


ROUNDS: Mapping[Phase, tuple[range, range]] = {
    phases.running: (NONE, ONE),
    phases.starting: (ONE, TWO),
    phases.stopping: (ONE, ONE),
    phases.gathering: (SOME, SOME),
}
"""How many rounds begin if the fault is outlived, and if it makes workers fail. Starting and stopping begin with the
end of a round themselves; in gathering, nodes come back one by one."""


def _faults_in(phase: Phase) -> Iterator[Fault]:
    outlived, failed = ROUNDS[phase]
    has_workers = phase is not phases.gathering
    for name, blow in OUTLIVED.items():
        if has_workers or not name.startswith("worker"):
            yield Fault(phase, name, blow, rounds=outlived)
    for name, blow in FREE.items():
        yield Fault(phase, name, blow)
    for name, blow in FAILURES.items():
        if has_workers or not name.startswith("worker"):
            charged = int(phase in (phases.running, phases.starting))
            yield Fault(phase, name, blow, charged=charged, rounds=failed)
    yield Fault(phase, "agent SIGSTOP past the lease", blows.freeze_agent, slow=True)
    for direction, ways in partitions.DIRECTIONS.items():
        # TCP sends again what was lost, ever more rarely: on a slow machine too late for the lease.
        rounds = ANY if phase is phases.running else SOME
        blow = partitions.part_briefly(ways)
        yield Fault(phase, f"brief partition {direction}", blow, rounds=rounds, needs_network=True)


FAULTS = tuple(_faults())
