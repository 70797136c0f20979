"""The RendezvousHandler that torchrun's agent asks: each answer is the coordinator's."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
from datetime import timedelta
from typing import Any

from torch.distributed import DistNetworkError, PrefixStore, Store, TCPStore
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
)

from rallypoint import __version__
from rallypoint.model import Assignment, Capability, JobState, NodeSpec, WorkerFailure
from rallypoint.security.client import hide_token
from rallypoint_agent import grpc_setup
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.link import Link, LinkConfig
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.node_name import claim_node_name
from rallypoint_agent.torch import BACKEND, conf
from rallypoint_agent.torch.closing import cancel_job
from rallypoint_agent.torch.guarding import WorkersGuard, obituary_of_torchrun
from rallypoint_agent.torch.member import JobOverError, Member

STORE_TIMEOUT = timedelta(seconds=300)
"""torch's own default for the store of a rendezvous."""

CONNECT_TIMEOUT = timedelta(seconds=1)
"""How long one try to reach rank 0's store may take: between two we look whether the round still stands."""

OUTCOME_WAIT_S = 10.0
"""So long a node that succeeded waits for the others' success to be counted. Its own is recorded whatever comes."""

logger = logging.getLogger(__name__)


class CoordinatorRendezvousHandler(RendezvousHandler):  # type: ignore[misc]
    """Its rounds are the coordinator's; each has a store, and a port, of its own.

    The agent of group rank 0 hosts the store, and the workers use the same one (``use_agent_store``): since it is
    fresh, nothing of an earlier round is in it. Raises ValueError for parameters that make no sense.
    """

    def __init__(self, params: RendezvousParameters) -> None:
        self._run_id: str = params.run_id
        self._endpoints = conf.endpoints(params.endpoint)
        self._name = claim_node_name(params.run_id, params.get("node_name"))
        spec = conf.job_spec(params.min_nodes, params.max_nodes, params.config)
        self._security = conf.security(params.config, self._endpoints)
        incarnation = os.urandom(16).hex()
        link = Link(
            LinkConfig(
                endpoints=self._endpoints,
                security=self._security,
                job=params.run_id,
                node=self._name.name,
                incarnation=incarnation,
                job_spec=spec,
                # torchrun says only afterwards how many workers it runs: to the coordinator the node is one.
                node_spec=NodeSpec(local_world_size=1, hostname=socket.gethostname(), entrypoint="torchrun"),
                agent_version=f"rallypoint-torchrun/{__version__}",
                capabilities=frozenset(Capability),
            )
        )
        config = AgentConfig(
            node=self._name.name,
            local_world_size=1,
            job_spec=spec,
            connect_timeout_ms=conf.connect_timeout_ms(params.config),
            start_ms=boot_ms(),
            tell_delay_ms=0,
        )
        obituary = obituary_of_torchrun(self._endpoints, params.run_id, incarnation, spec.lease_ttl_ms, self._security)
        self._member = Member(link, config, WorkersGuard(incarnation, obituary), params.local_addr)
        # The guard has it for its obituary; torchrun's workers would inherit it.
        hide_token()
        self._store: Store | None = None
        # torchrun tells nobody when a signal ends it.
        atexit.register(self._leave, "torchrun ended")

    def get_backend(self) -> str:
        return BACKEND

    def get_run_id(self) -> str:
        return self._run_id

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for the next round. No worker of an earlier one is alive.

        Raises what torch documents. A node that is not needed any more, since the job succeeded without it or it was
        drained, ends with exit status 0: torch's own RendezvousGracefulExitError ends with 1.
        """
        while True:
            try:
                assignment = self._member.next_round()
            except JobOverError as over:
                raise _ending(over.finish) from over
            # gRPC has begun, and looks at none of it again; torchrun's workers would inherit it.
            grpc_setup.restore_environment()
            store = self._store_of(assignment)
            if store is not None:
                self._store = store
                return self._info(assignment, store)

    def _info(self, assignment: Assignment, store: Store) -> RendezvousInfo:
        host, port = assignment.endpoint
        return RendezvousInfo(
            PrefixStore(f"rallypoint/{assignment.round}", store),
            assignment.group_rank,
            assignment.group_world_size,
            RendezvousStoreInfo(host, port),
        )

    def _store_of(self, assignment: Assignment) -> Store | None:
        """Host or reach the round's store; None if the round is over before that."""
        host, port = assignment.endpoint
        if assignment.group_rank == 0:
            return TCPStore(
                host, port, is_master=True, multi_tenant=True, wait_for_workers=False, timeout=STORE_TIMEOUT
            )
        while not self._member.wants_stop():
            try:
                store = TCPStore(host, port, is_master=False, timeout=CONNECT_TIMEOUT)
            except DistNetworkError as error:
                logger.info("the store of round %d is not there yet: %s", assignment.round, error)
            else:
                store.set_timeout(STORE_TIMEOUT)
                return store
        return None

    def num_nodes_waiting(self) -> int:
        """1 as soon as this round is to end, whatever for: that is what has torchrun stop and ask for the next one."""
        return int(self._member.wants_stop())

    def is_closed(self) -> bool:
        finish = self._member.finish
        return finish is not None and finish.kind is FinishKind.DECIDED

    def set_closed(self) -> None:
        """End the job for every node."""
        cancel_job(self._endpoints, self._run_id, f"closed by torchrun on {self._name.name}", self._security)

    def shutdown(self) -> bool:
        """torchrun's agent is done. How it went is seen from the exception that is under way."""
        error = sys.exception()
        if error is None:
            self._member.succeeded()
            self._member.wait_finished(OUTCOME_WAIT_S)
        elif isinstance(error, ChildFailedError):
            self._fail(error)
        self._leave("torchrun ended")
        return True

    def _fail(self, error: ChildFailedError) -> None:
        """Our restarts are used up. As with torch's own backends, that ends the job for all."""
        failures = tuple(_failure(self._name.name, rank, failure) for rank, failure in error.failures.items())
        first = min(failures, key=lambda failure: failure.fail_time_ms, default=None)
        what = f": rank {first.rank} exited {first.exit_code}" if first else ""
        # Before the failure is told: the others would be sent into another round.
        cancel_job(
            self._endpoints,
            self._run_id,
            f"torchrun on {self._name.name} has no restart of its own left{what}",
            self._security,
        )
        self._member.failed(failures)
        self._member.wait_finished(OUTCOME_WAIT_S)

    def _leave(self, message: str) -> None:
        self._store = None
        self._member.close(message)
        self._name.close()


def _ending(finish: Finish) -> BaseException:
    """What torchrun is to end by."""
    succeeded = finish.outcome is not None and finish.outcome.state is JobState.SUCCEEDED
    if succeeded or finish.kind is FinishKind.DRAINED:
        logger.info("%s", finish.message)
        return SystemExit(0)
    return _error_type(finish)(finish.message)


def _error_type(finish: Finish) -> type[Exception]:
    found: type[Exception] = RendezvousError
    if finish.kind is FinishKind.UNREACHABLE:
        found = RendezvousConnectionError
    elif finish.outcome is not None:
        found = RendezvousTimeoutError if finish.outcome.reason == "JOIN_TIMEOUT" else RendezvousClosedError
    return found


def _failure(node: str, rank: int, failure: Any) -> WorkerFailure:
    """From torch's ProcessFailure."""
    return WorkerFailure(
        node=node,
        local_rank=failure.local_rank,
        rank=rank,
        pid=failure.pid,
        exit_code=failure.exitcode,
        message=str(failure.message)[:1000],
        fail_time_ms=failure.timestamp * 1000,
    )
