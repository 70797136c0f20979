"""What agents are told: nothing before it is durable (C6), and all of a round the same (C1, C3)."""

from __future__ import annotations

from rallypoint.model import Assignment, Directive, Exit, Run, Version, Welcome
from simulation.network import Down
from simulation.oracle_journal import JournalOracle
from simulation.truth import History, LifeTruth, expected_assignment
from simulation.world import Violation


class WireOracle:
    """Sees each message when it reaches an agent: what was under way when the journal was lost is judged by that."""

    def __init__(self, journal: JournalOracle) -> None:
        self._journal = journal
        self._seen: dict[str, tuple[int, Version]] = {}
        """Incarnation -> its newest directive, and how often the journal had been lost by then."""

    def delivered(self, node: str, incarnation: str, message: Down) -> None:
        wrong = self._judge(self._journal.history, node, incarnation, message)
        if wrong is not None and all(self._judge(it, node, incarnation, message) for it in self._journal.lost):
            raise wrong
        if isinstance(message, Welcome):
            self._directed(incarnation, message.directive.version)
        elif isinstance(message, Directive):
            self._directed(incarnation, message.version)

    def _directed(self, incarnation: str, version: Version) -> None:
        """C1 holds for agents whatever is lost: they would not obey what seems older than what they know."""
        losses, newest = self._seen.get(incarnation, (0, version))
        if losses < len(self._journal.lost) and version < newest:
            raise Violation("C1", f"{incarnation} has seen {newest}, and is told {version} after records were lost")
        self._seen[incarnation] = len(self._journal.lost), max(version, newest)

    def _judge(self, history: History, node: str, incarnation: str, message: Down) -> Violation | None:
        try:
            if isinstance(message, Welcome):
                self._welcome(history, node, incarnation, message)
            elif isinstance(message, Directive):
                self._directive(history, node, message)
        except Violation as violation:
            return violation
        return None

    def _welcome(self, history: History, node: str, incarnation: str, welcome: Welcome) -> None:
        lease = history.leases.get(welcome.lease_id)
        if lease is None:
            raise Violation("C6", f"{incarnation} is given lease {welcome.lease_id}, which is not durable")
        if (lease.node, lease.incarnation) != (node, incarnation):
            raise Violation("C2", f"{incarnation} is given lease {welcome.lease_id} of {lease.incarnation}")
        if welcome.directive.job_uid != welcome.job_uid:
            raise Violation("C2", f"{incarnation} is welcomed to {welcome.job_uid} with {welcome.directive}")
        self._directive(history, node, welcome.directive)

    def _directive(self, history: History, node: str, directive: Directive) -> None:
        life = history.lives.get(directive.job_uid)
        if life is None or directive.version.revision > history.revision:
            raise Violation("C6", f"{node} is told {directive}, durable is {history.revision}")
        if isinstance(directive.action, Exit) and directive.action.outcome != life.outcome:
            raise Violation("C9", f"{node} is told {directive.action.outcome}, the outcome is {life.outcome}")
        if isinstance(directive.action, Run):
            self._assignment(node, life, directive.action.assignment)

    def _assignment(self, node: str, life: LifeTruth, assignment: Assignment) -> None:
        round_ = life.rounds.get(assignment.round)
        if round_ is None:
            raise Violation("C6", f"{node} is told to run round {assignment.round}, which is not durable")
        known = [it for it in (round_, round_.before) if it is not None]
        places = [it for it in known if node in [seat.node for seat in it.formed.seats]]
        if not places:
            raise Violation("C3", f"{node} stands by in round {assignment.round}, and is told to run it")
        expected = [expected_assignment(it, node) for it in places]
        if assignment not in expected:
            raise Violation("C3", f"{node} is told {assignment}, expected {expected}")
