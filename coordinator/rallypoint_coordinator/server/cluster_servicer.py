"""ClusterService: the coordinator itself, also while it serves nobody else."""

from __future__ import annotations

from collections import Counter
from typing import Any

import rallypoint
from rallypoint import limits
from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.model import PROTOCOL_VERSION
from rallypoint.rpc_status import abort
from rallypoint.v1 import cluster_service_pb2 as pb
from rallypoint.v1.cluster_service_pb2_grpc import ClusterServiceServicer
from rallypoint.wire.scalars import duration_to_proto, instant_to_proto
from rallypoint.wire.types import JOB_STATES
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.directory import LIVES_MAX
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.membership import MEMBERS_MAX
from rallypoint_coordinator.server.clock import SystemClock
from rallypoint_coordinator.server.driver import Driver, DriverOptions
from rallypoint_coordinator.server.guard import ANONYMOUS_CALLS_PER_PEER, Guard
from rallypoint_coordinator.server.options import MESSAGE_BYTES_MAX, METADATA_BYTES_MAX, Address
from rallypoint_coordinator.server.pages import PAGE_SIZE_MAX

STATES = {
    Reason.RECOVERING: pb.CLUSTER_STATE_RECOVERING,
    Reason.FENCED: pb.CLUSTER_STATE_FENCED,
    Reason.SHUTTING_DOWN: pb.CLUSTER_STATE_SHUTTING_DOWN,
}
"""What it is that keeps the driver from serving. Any other refusal is about the call, and its answer."""


class ClusterService(ClusterServiceServicer):
    """``addresses`` and ``start_ms`` are there once :meth:`listens` was called."""

    def __init__(self, driver: Driver, guard: Guard) -> None:
        self._driver = driver
        self._guard = guard
        self._clock = SystemClock()
        self._limits = limits_of(driver.options, guard.calls_per_peer)
        self._addresses: tuple[str, ...] = ()
        self._start_ms = 0

    def listens(self, *addresses: Address) -> None:
        """From now on, there."""
        self._addresses = tuple(map(str, addresses))
        self._start_ms = self._clock.wall_ms()

    async def GetCluster(self, request: pb.GetClusterRequest, context: Any) -> pb.GetClusterResponse:
        try:
            cluster = await self._driver.read(self._facts)
        except RefusedError as error:
            if error.refusal.reason not in STATES:
                await abort(context, error.refusal)
            cluster = not_serving(error.refusal)
        cluster.MergeFrom(
            pb.Cluster(
                coordinator_version=rallypoint.__version__,
                protocol_versions=[PROTOCOL_VERSION],
                addresses=self._addresses,
                start_time=instant_to_proto(self._start_ms),
                limits=self._limits,
                observe_time=instant_to_proto(self._clock.wall_ms()),
            )
        )
        return pb.GetClusterResponse(cluster=cluster)

    def _facts(self, cluster: Cluster, stamp: Stamp) -> pb.Cluster:
        """A query: O(lives)."""
        return pb.Cluster(
            cluster_id=cluster.cluster_id,
            epoch=cluster.epoch,
            revision=stamp.revision,
            state=pb.CLUSTER_STATE_SERVING,
            counts=pb.ClusterCounts(
                jobs=jobs_by_state(cluster),
                lives=len(cluster.lives),
                agents=sum(len(life.presences) for life in cluster.lives.values()),
                agent_streams=self._driver.stream_count,
                watches=self._driver.watches.open_count,
                calls=self._guard.open_calls,
            ),
        )


def not_serving(refusal: Refusal) -> pb.Cluster:
    return pb.Cluster(state=STATES[refusal.reason], message=refusal.message)


def jobs_by_state(cluster: Cluster) -> list[pb.JobStateCount]:
    newest = (cluster.current(name) for name in cluster.job_names())
    counts = Counter(JOB_STATES.number(life.facts.state) for life in newest if life is not None)
    return [pb.JobStateCount(state=state, count=count) for state, count in sorted(counts.items())]


def limits_of(options: DriverOptions, calls_per_peer: int) -> pb.ClusterLimits:
    """Everything that is bounded for the coordinator as a whole, for a peer, or for what agents and people name."""
    return pb.ClusterLimits(
        message_bytes=MESSAGE_BYTES_MAX,
        header_bytes=METADATA_BYTES_MAX,
        calls_per_peer=calls_per_peer,
        anonymous_calls_per_peer=ANONYMOUS_CALLS_PER_PEER,
        agent_streams=options.streams_max,
        watches=options.watches.watches_max,
        undecided_jobs=LIVES_MAX,
        retained_jobs=options.retention.lives_max,
        retained_nodes=options.retention.nodes_max,
        retained_time=duration_to_proto(options.retention.age_max_ms),
        nodes_per_job=MEMBERS_MAX,
        workers_per_node=limits.LOCAL_WORLD_SIZE_MAX,
        job_name_length=limits.JOB_NAME_LENGTH,
        node_name_length=limits.NODE_NAME_LENGTH,
        labels_per_node=limits.LABELS_MAX,
        label_key_bytes=limits.LABEL_KEY_BYTES,
        label_value_bytes=limits.LABEL_VALUE_BYTES,
        page_size=PAGE_SIZE_MAX,
    )
