"""The port that a node offers for a round, and the store there, as an agent uses them."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from rallypoint.model import AgentPhase, Endpoint, JobSpec, JobState, Observed, StoreHost
from rallypoint_agent.api import WorkerGroup
from rallypoint_agent.core import port as core_port
from rallypoint_agent.core.effects import FinishKind
from rallypoint_agent.rendezvous_port import HeldPort, hold_port
from rallypoint_agent.torch_store.commands import Append, Get
from support.fake_link import FakeLink
from support.ports import free_range
from support.stand_in_agent import agent_with, one_failed, one_round, succeeded
from support.torch_store_words import RawClient


def test_each_round_is_offered_another_port_which_is_held() -> None:
    offers: list[Endpoint] = []

    def answer(link: FakeLink, observed: Observed) -> None:
        if observed.offer is None or observed.phase.may_have_workers:
            return
        if len(offers) == 2:
            link.decide(JobState.FAILED)
            return
        assert observed.offer.endpoint not in offers
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("", observed.offer.endpoint.port))
        link.run_round(len(offers), offer_id=observed.offer.offer_id)
        offers.append(observed.offer.endpoint)

    agent_with(one_failed, answer).run()
    assert {offer.host for offer in offers} == {"10.0.0.1"}
    for offer in offers:
        with socket.socket() as stranger:
            stranger.bind(("", offer.port))


@pytest.mark.parametrize(
    ("spec", "host"),
    [
        ({"local_addr": "node-a"}, "node-a"),
        ({"local_addr": "node-a", "master_addr": "m"}, "m"),
        ({"local_addr": None, "master_addr": "m"}, "m"),
        ({"local_addr": None}, "10.0.0.7"),
    ],
)
def test_the_host_that_is_offered(spec: dict[str, Any], host: str) -> None:
    agent = agent_with(succeeded, **spec)
    agent.run()
    offer = agent.link.reports[0].offer
    assert offer is not None
    assert offer.endpoint.host == host


def test_a_fixed_port_is_offered_again_and_again() -> None:
    held = hold_port()
    held.close()
    agent = agent_with(one_failed, master_port=held.port)
    agent.run()
    offers = {observed.offer for observed in agent.link.reports if observed.offer}
    assert {offer.endpoint.port for offer in offers} == {held.port}
    assert len(offers) == 2


def test_a_range_has_another_port_for_the_next_round() -> None:
    first = free_range(3)
    agent = agent_with(one_failed, port_range=first)
    agent.run()
    offers = {observed.offer for observed in agent.link.reports if observed.offer}
    assert {offer.endpoint.port for offer in offers} == set(first[:2])


def test_a_port_that_cannot_be_had_is_not_offered() -> None:
    with socket.create_server(("", 0)) as server:
        agent = agent_with(succeeded, lambda link, _: link.decide(JobState.FAILED), master_port=server.getsockname()[1])
        agent.run()
    assert agent.link.reports[0].offer is None


def test_a_port_that_was_named_and_stays_busy_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_port, "NAMED_PORT_PATIENCE_MS", 0)
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        agent = agent_with(succeeded, master_port=port)
        assert agent.run().is_failed()
    assert agent.finish is not None
    assert agent.finish.kind is FinishKind.NO_PORT
    assert agent.finish.message.startswith(f"port {port} (--master-port) cannot be had for the rendezvous: Address")
    assert "start" not in agent.calls


def test_a_range_without_a_free_port_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_port, "NAMED_PORT_PATIENCE_MS", 0)
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        agent = agent_with(succeeded, port_range=range(port, port + 1))
        assert agent.run().is_failed()
    assert agent.finish is not None
    assert agent.finish.message.startswith(f"a port of {port}-{port} (--port-range) cannot be had for the rendezvous")


class TestStoreOfTheAgent:
    SPEC = JobSpec(max_nodes=1, shutdown_timeout_ms=20_000, store_host=StoreHost.AGENT)

    @staticmethod
    def tell_the_store(group: WorkerGroup, seen: list[bytes]) -> None:
        """What a worker of this round finds, and leaves behind."""
        client = RawClient(group.master_port or 0)
        client.say(Append(b"round", b"x"), Get(b"round"))
        seen.append(client.hear(8 + 1)[8:])
        client.close()

    def test_each_round_has_a_new_store_and_none_is_left(self) -> None:
        seen: list[bytes] = []

        def answer(link: FakeLink, observed: Observed) -> None:
            if observed.offer is None or observed.phase.may_have_workers:
                return
            if len(seen) == 2:
                link.decide(JobState.FAILED)
            else:
                link.run_round(len(seen), endpoint=observed.offer.endpoint, offer_id=observed.offer.offer_id)

        agent = agent_with(one_failed, answer, job_spec=self.SPEC)
        agent.on_start = lambda group: self.tell_the_store(group, seen)
        agent.run()
        assert seen == [b"x", b"x"]
        with pytest.raises(ConnectionRefusedError):
            RawClient(agent.get_worker_group().master_port or 0)

    def test_it_outlives_local_workers_that_succeeded(self) -> None:
        agent = agent_with(succeeded, job_spec=self.SPEC)
        ports: list[int] = []

        def answer(link: FakeLink, observed: Observed) -> None:
            if observed.phase is AgentPhase.SUCCEEDED:
                ports.append(agent.get_worker_group().master_port or 0)
                RawClient(ports[0]).close()
            one_round(link, observed)

        agent.link.set_answer(answer)
        agent.run()
        with pytest.raises(ConnectionRefusedError):
            RawClient(ports[0])

    def test_another_nodes_agent_serves_it(self) -> None:
        def answer(link: FakeLink, observed: Observed) -> None:
            if observed.phase is AgentPhase.READY and observed.offer:
                link.run_round(0, endpoint=observed.offer.endpoint, group_rank=1)
            elif observed.phase is AgentPhase.SUCCEEDED:
                link.decide(JobState.SUCCEEDED)

        agent = agent_with(succeeded, answer, job_spec=self.SPEC)
        refused: list[bool] = []

        def look(group: WorkerGroup) -> None:
            with pytest.raises(ConnectionRefusedError):
                RawClient(group.master_port or 0)
            refused.append(True)

        agent.on_start = look
        agent.run()
        assert refused

    def test_a_port_that_was_lost_is_a_failed_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lost(port: object) -> socket.socket:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(HeldPort, "listen", lost)
        agent = agent_with(succeeded, job_spec=self.SPEC)
        assert agent.run().is_failed()
        (failure,) = agent.failures
        assert re.fullmatch(r"cannot serve the store at port \d+: Too many open files", failure.message)
        assert "start" not in agent.calls
