"""What is really alive: A1, A2, C4, and the failures and successes that really were."""

from __future__ import annotations

from simulation.keeper_group import Group
from simulation.oracle_leases import LeaseOracle
from simulation.world import Violation, World


class WorkerOracle:
    """Told by the keepers."""

    def __init__(self, world: World, leases: LeaseOracle) -> None:
        self._world = world
        self.failed_rounds: set[tuple[str, int]] = set()
        """Rounds of lives in which a worker failed before anybody ended it."""
        self.exit_codes: set[tuple[str, int, int]] = set()
        """With which they failed."""
        self.succeeded_nodes: set[tuple[str, int, str]] = set()
        """Round and node of lives whose workers all exited with 0."""
        self.exits_ms: dict[tuple[str, int, str], int] = {}
        """When an incarnation's worker failed in a round of a life, in virtual time. Of two histories each may have a
        round of one number, but an agent runs each number once."""
        self.last_start_ms: dict[tuple[str, int], int] = {}
        """When the last node started its workers of a round of a life."""
        self.stuck_groups: set[tuple[str, str, int]] = set()
        """Life, incarnation and round of those that their agents were told SIGKILL does not end."""
        self.excused: dict[tuple[str, str], int] = {}
        """Life and incarnation -> the last round of which something stuck there may outlive it: see ``excuse``."""
        self._formed_after_loss: dict[tuple[str, int], tuple[set[str], bool]] = {}
        self._leases = leases
        self._live: dict[str, list[Group]] = {}
        self._last_round: dict[str, int] = {}

    @property
    def live_groups(self) -> list[Group]:
        return [group for groups in self._live.values() for group in groups]

    def started(self, group: Group) -> None:
        """A worker starts: nobody else of this life may be in another round."""
        for other in self._live.get(group.job_uid, []):
            if other.incarnation == group.incarnation:
                raise Violation("A1", f"{group.incarnation} starts round {group.round} beside round {other.round}")
            if other.round != group.round and not self._is_excused(other) and not self._is_lost(other, group):
                raise Violation(
                    "C4",
                    f"{group.job_uid}: {group.incarnation} starts round {group.round}"
                    f" while round {other.round} is alive on {other.incarnation}",
                )
        last = self._last_round.get(group.incarnation, -1)
        if group.round <= last:
            raise Violation("A2", f"{group.incarnation} starts round {group.round} after round {last}")
        self._last_round[group.incarnation] = group.round
        self.last_start_ms[group.job_uid, group.round] = self._world.now_ms
        self._live.setdefault(group.job_uid, []).append(group)

    def excuse(self, uid: str, incarnation: str, round_: int) -> None:
        """C4's exception: the node was expelled for what it said, or its lease ran out while it could say nothing."""
        self.excused[uid, incarnation] = max(round_, self.excused.get((uid, incarnation), round_))

    def _is_excused(self, group: Group) -> bool:
        last = self.excused.get((group.job_uid, group.incarnation), -1)
        return group.unkillable and _is_killed(group, self._world.now_ms) and group.round <= last

    def formed_after_loss(self, uid: str, round_: int, members: set[str], knows: bool) -> None:
        """A round is formed with these incarnations' leases live; whether it was known that records were lost."""
        self._formed_after_loss[uid, round_] = members, knows

    def _is_lost(self, other: Group, group: Group) -> bool:
        """C4's other exception: nobody could know of the other agent when the round was formed.

        If it was known that somebody may be missing, a lease was waited for: then only what is stuck can be alive.
        """
        members, knows = self._formed_after_loss.get((group.job_uid, group.round), (None, True))
        if members is None or other.incarnation in members:
            return False
        return not knows or (other.unkillable and _is_killed(other, self._world.now_ms))

    def stuck(self, group: Group) -> None:
        if not group.unkillable:
            raise Violation("C4", f"{group.incarnation} takes round {group.round} for stuck, which can be killed")
        self.stuck_groups.add((group.job_uid, group.incarnation, group.round))

    def gone(self, group: Group) -> None:
        self._live[group.job_uid].remove(group)
        self._leases.workers_end(group)

    def exited(self, group: Group, now_ms: int) -> None:
        self.exits_ms[group.job_uid, group.round, group.incarnation] = now_ms

    def never_started(self, group: Group, exit_code: int) -> None:
        """It is being ended; if its agent gave it up, that was just now, and counts as a failure with this code."""
        self.failed(group, exit_code)
        self.exits_ms.setdefault((group.job_uid, group.round, group.incarnation), self._world.now_ms)

    def failed(self, group: Group, exit_code: int) -> None:
        self.exit_codes.add((group.job_uid, group.round, exit_code))
        self.failed_rounds.add((group.job_uid, group.round))

    def succeeded(self, group: Group) -> None:
        self.succeeded_nodes.add((group.job_uid, group.round, group.node))


def _is_killed(group: Group, now_ms: int) -> bool:
    return group.kill_at_ms is not None and group.kill_at_ms <= now_ms
