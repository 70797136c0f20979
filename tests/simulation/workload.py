"""What the training script does: how long each round takes, who fails in it, and who then fails with it."""

from __future__ import annotations

from dataclasses import dataclass

from simulation.options import JobOptions
from simulation.world import Chance, World

HEALED_ROUND_MS = (500, 8_000)
BIND_FAILS_MS = (100, 3_000)
EXIT_CODES = (1, 2, 17, -9, -11)


@dataclass(frozen=True, slots=True)
class Fate:
    """How a node's workers end if nobody ends them: all with 0, or one with ``exit_code``."""

    after_ms: int
    exit_code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Plan:
    lasts_ms: int
    fails_ms: int | None = None
    culprit: int = 0
    exit_code: int = 0
    message: str = ""


class Workload:
    """The same plan for all nodes of a round. Nothing hangs for ever."""

    def __init__(self, world: World) -> None:
        self.healed = False
        self._world = world
        self._plans: dict[tuple[str, int], _Plan] = {}

    def fate(self, job: JobOptions, job_uid: str, round_: int, group_rank: int) -> Fate:
        plan = self._plans.get((job_uid, round_))
        if plan is None:
            plan = self._plans[job_uid, round_] = self._draw(job, self._world.chance(f"round/{job_uid}/{round_}"))
        chance = self._world.chance(f"round/{job_uid}/{round_}/{group_rank}")
        if plan.fails_ms is None:
            return Fate(plan.lasts_ms + chance.between(0, 400))
        if group_rank == plan.culprit:
            return Fate(plan.fails_ms, plan.exit_code, plan.message)
        if chance.happens(job.collateral_chance):
            # At times too close to the first to be told from it.
            after_ms = plan.fails_ms + chance.between(0, chance.choice((30, 2_000)))
            return Fate(after_ms, 1, chance.choice(("Connection reset by peer", "it broke as well")))
        return Fate(plan.fails_ms + chance.between(5_000, 40_000))

    def _draw(self, job: JobOptions, chance: Chance) -> _Plan:
        lasts_ms = chance.between(*(HEALED_ROUND_MS if self.healed else job.round_ms))
        if not self.healed and chance.happens(job.bind_failure_chance):
            return _Plan(lasts_ms, chance.between(*BIND_FAILS_MS), 0, 1, "Address already in use")
        if not chance.happens(job.failure_chance):
            return _Plan(lasts_ms)
        culprit = 0 if chance.happens(0.5) else chance.between(0, 3)
        return _Plan(lasts_ms, chance.between(0, lasts_ms), culprit, chance.choice(EXIT_CODES), "it broke")
