"""``rallypoint nodes``, and the nodes of ``rallypoint status``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rallypoint.commands.output import Paint, plain
from rallypoint.commands.session import Session
from rallypoint.commands.table import table
from rallypoint.commands.words import age, enum_word, last_part
from rallypoint.texts import spans
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2

_HEADER = ("NODE", "STATE", "RANKS", "AGENT", "HEARTBEAT", "ADDRESS", "VERSION", "NOTES")

_MEMBERS = frozenset(
    (pb.NODE_STATE_STANDBY, pb.NODE_STATE_PARTICIPANT, pb.NODE_STATE_SUCCEEDED, pb.NODE_STATE_QUARANTINED)
)


def show_nodes(session: Session) -> None:
    nodes = ask_nodes(session)
    session.output.show([nodes], lambda paint: nodes_text(nodes.nodes, ask_workers(session).workers, paint))


def ask_nodes(session: Session) -> pb.ListNodesResponse:
    """All of them."""
    request = pb.ListNodesRequest(parent=f"jobs/{session.arguments.job}")
    return session.connection.ask_all(session.connection.jobs.ListNodes, request)


def ask_workers(session: Session) -> pb.ListWorkersResponse:
    """All of the current or last round."""
    request = pb.ListWorkersRequest(parent=f"jobs/{session.arguments.job}")
    return session.connection.ask_all(session.connection.jobs.ListWorkers, request)


def nodes_text(nodes: Iterable[pb.Node], workers: Iterable[pb.Worker], paint: Paint = plain) -> str:
    """A line for each, with the ranks that its workers have, or had in the last round."""
    ranks: defaultdict[str, list[int]] = defaultdict(list)
    for worker in workers:
        ranks[worker.node].append(worker.rank)
    return table(_HEADER, (_row(node, ranks) for node in nodes), paint)


def is_well(node: pb.Node) -> bool:
    """Whether there is nothing to be said about it."""
    return node.state in (pb.NODE_STATE_PARTICIPANT, pb.NODE_STATE_SUCCEEDED) and not _notes(node)


def _row(node: pb.Node, ranks: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    name = last_part(node.name)
    return (
        name,
        enum_word(pb.NodeState, node.state, "NODE_STATE_"),
        ",".join(spans(ranks.get(name, ()))),
        enum_word(types_pb2.AgentPhase, node.phase, "AGENT_PHASE_"),
        age(node.heartbeat_time, node.observe_time),
        node.peer,
        node.agent_version.replace(" ", "-"),
        "; ".join(_notes(node)),
    )


def _notes(node: pb.Node) -> list[str]:
    """What is out of the ordinary."""
    notes = []
    if node.state in _MEMBERS and not node.attached:
        notes.append("not attached")
    if node.suspect:
        notes.append("suspect: its stream broke or its heartbeats are late")
    if node.unkillable_pids:
        notes.append(f"SIGKILL does not end {', '.join(map(str, node.unkillable_pids))}")
    if node.watchdog.last_expiry:
        notes.append(f"watchdog: {node.watchdog.last_expiry}")
    return notes
