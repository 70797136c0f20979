"""``rallypoint cluster``, and what ``rallypoint version`` says of the coordinator."""

from __future__ import annotations

from collections.abc import Iterator

from rallypoint import __version__
from rallypoint.commands.output import Paint, json_of, plain
from rallypoint.commands.session import Session
from rallypoint.commands.words import age, enum_word, one_line
from rallypoint.v1 import cluster_service_pb2 as pb
from rallypoint.v1 import types_pb2

_LABEL_WIDTH = 14
_LIMIT_WIDTH = 26


def show_cluster(session: Session) -> None:
    answer = _ask(session)
    session.output.show([answer], lambda paint: cluster_text(answer.cluster, paint))


def show_versions(session: Session) -> None:
    """Ours and the coordinator's."""
    cluster = _ask(session).cluster
    fields = {"client_version": __version__, "cluster": json_of(cluster)}
    session.output.show_fields(fields, lambda paint: f"rallypoint {__version__}\n{coordinator_text(cluster)}")


def _ask(session: Session) -> pb.GetClusterResponse:
    return session.connection.ask(session.connection.cluster.GetCluster, pb.GetClusterRequest())


def cluster_text(cluster: pb.Cluster, paint: Paint = plain) -> str:
    """All that is known of it; of one that does not serve just now that is less."""
    return "\n".join(f"{label:<{_LABEL_WIDTH}}{text}" for label, text in _lines(cluster, paint))


def coordinator_text(cluster: pb.Cluster) -> str:
    return f"coordinator {_release(cluster)}"


def _release(cluster: pb.Cluster) -> str:
    return f"{one_line(cluster.coordinator_version)}, protocol {', '.join(map(str, cluster.protocol_versions))}"


def _lines(cluster: pb.Cluster, paint: Paint) -> Iterator[tuple[str, str]]:
    state = paint(enum_word(pb.ClusterState, cluster.state, "CLUSTER_STATE_"))
    yield "state", state
    if cluster.message:
        yield "why", one_line(cluster.message)
    if cluster.cluster_id:
        yield "cluster", f"{cluster.cluster_id}: epoch {cluster.epoch}, revision {cluster.revision}"
    yield "coordinator", f"{_release(cluster)}, up for {age(cluster.start_time, cluster.observe_time)}"
    yield "listens on", ", ".join(map(one_line, cluster.addresses))
    if cluster.HasField("counts"):
        yield "jobs", _jobs(cluster.counts, paint)
        yield "agents", f"{cluster.counts.agents}, with {cluster.counts.agent_streams} streams open"
        yield "watches", str(cluster.counts.watches)
        yield "calls", str(cluster.counts.calls)
    label = "limits"
    for name, value in _limits(cluster.limits):
        yield label, f"{name:<{_LIMIT_WIDTH}}{value}"
        label = ""


def _jobs(counts: pb.ClusterCounts, paint: Paint) -> str:
    total = sum(of.count for of in counts.jobs)
    states = ", ".join(
        f"{of.count} {paint(enum_word(types_pb2.JobState, of.state, 'JOB_STATE_'))}" for of in counts.jobs
    )
    return f"{total}: {states}" if states else "0"


def _limits(limits: pb.ClusterLimits) -> Iterator[tuple[str, str]]:
    """Each by its name in the API: the comments there say what it is."""
    for field, value in limits.ListFields():
        is_time = field.name == "retained_time"
        yield field.name, f"{value.seconds // 86_400} days" if is_time else f"{value:,}"
