"""What the training script does: how long each round takes, who fails in it, and who then fails with it."""

from __future__ import annotations

from dataclasses import dataclass

from simulation.options import Options
from simulation.world import World

HEALED_ROUND_MS = (500, 8_000)


@dataclass(frozen=True, slots=True)
class Fate:
    """How a node's workers end if nobody ends them: all with 0, or one with ``exit_code``."""

    after_ms: int
    exit_code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Plan:
    lasts_ms: int
    fails_ms: int | None
    culprit: int


class Workload:
    """The same plan for all nodes of a round. Nothing hangs for ever."""

    def __init__(self, world: World, options: Options) -> None:
        self.healed = False
        self._world = world
        self._options = options
        self._plans: dict[tuple[str, int], _Plan] = {}

    def fate(self, job_uid: str, round_: int, group_rank: int) -> Fate:
        plan = self._plans.get((job_uid, round_))
        if plan is None:
            plan = self._plans[job_uid, round_] = self._draw()
        if plan.fails_ms is None:
            return Fate(plan.lasts_ms + self._world.between(0, 400))
        if group_rank == plan.culprit:
            return Fate(plan.fails_ms, self._world.rng.choice((1, 2, -9, -11)), "it broke")
        if self._world.chance(self._options.collateral_chance):
            # At times too close to the first to be told from it.
            after_ms = plan.fails_ms + self._world.between(0, self._world.rng.choice((30, 2_000)))
            return Fate(after_ms, 1, self._world.rng.choice(("Connection reset by peer", "it broke as well")))
        return Fate(plan.fails_ms + self._world.between(5_000, 40_000))

    def _draw(self) -> _Plan:
        low, high = HEALED_ROUND_MS if self.healed else self._options.round_ms
        lasts_ms = self._world.between(low, high)
        if not self._world.chance(self._options.failure_chance):
            return _Plan(lasts_ms, None, 0)
        culprit = 0 if self._world.chance(0.5) else self._world.between(0, 3)
        return _Plan(lasts_ms, self._world.between(0, lasts_ms), culprit)
