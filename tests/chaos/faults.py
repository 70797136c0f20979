"""What is done to the cluster, and what that must cost.

A fault is a phase of the job and a blow. The blow strikes in the phase and returns what is to be done once the phase
is left: wait for what has to come of it by itself, then put back what was taken away.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from chaos import scene as phases
from chaos.fleet import WORKERS_PER_NODE, Wrong, kill, now_ns, sleep_past_lease
from chaos.scene import Scene
from rallypoint.v1 import job_service_pb2
from support.netns import Network, Way, both_ways

Phase = Callable[[Scene], AbstractContextManager[None]]
Mend = Callable[[], None]
Blow = Callable[[Scene], Mend]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``charged``: the restarts it spends. ``unnoticed``: whether the workers go on, None if either may be.

    A short stop that, on a busy machine, took too long may be noticed anyhow.
    """

    name: str
    phase: Phase
    blow: Blow
    charged: int = 0
    unnoticed: bool | None = False
    slow: bool = False
    """Whether a lease has to run out."""
    needs_network: bool = False

    def play(self, scene: Scene) -> None:
        """Strike, mend, wait until the cluster is at rest again, and see what it cost."""
        with self.phase(scene):
            mend = self.blow(scene)
        mend()
        before, after = scene.before, scene.fleet.wait_healthy()
        spent = after.restart_count - before.restart_count
        if spent != self.charged:
            raise Wrong(f"{self.name} spent {spent} restarts instead of {self.charged}")
        if self.unnoticed and scene.was_short and after.pids != before.pids:
            raise Wrong(f"{self.name} cost the workers their lives: {before.pids} before, {after.pids} after")
        if self.unnoticed is False and after.round == before.round:
            raise Wrong(f"{self.name} led to no new round")
        if wrong := scene.fleet.lives.check():
            raise Wrong("; ".join(wrong))


# --- the coordinator


def kill_coordinator(scene: Scene) -> Mend:
    return _end_coordinator(scene, signal.SIGKILL)


def stop_and_start_coordinator(scene: Scene) -> Mend:
    return _end_coordinator(scene, signal.SIGTERM)


def _end_coordinator(scene: Scene, number: signal.Signals) -> Mend:
    fleet, at_ns = scene.fleet, now_ns()
    fleet.coordinator.signal(number)
    fleet.coordinator.wait()

    def mend() -> None:
        fleet.serve_again()
        scene.note(f"coordinator {number.name} -> the next one serves", at_ns)
        fleet.wait_attached()
        scene.note(f"coordinator {number.name} -> all agents attached again", at_ns)

    return mend


def freeze_coordinator_briefly(scene: Scene) -> Mend:
    return _freeze_briefly(scene, scene.fleet.coordinator.pid)


def freeze_coordinator(scene: Scene) -> Mend:
    """So long that every agent has ended its workers, and that every lease seems to have run out when it goes on."""
    fleet, at_ns = scene.fleet, now_ns()
    os.kill(fleet.coordinator.pid, signal.SIGSTOP)

    def mend() -> None:
        scene.note_all_gone("coordinator SIGSTOP past the lease -> no worker is left", at_ns, scene.families())
        sleep_past_lease(at_ns)
        resumed_ns = now_ns()
        os.kill(fleet.coordinator.pid, signal.SIGCONT)
        scene.note_next_round("coordinator SIGCONT after that -> next round", resumed_ns)

    return mend


# --- an agent


def kill_agent(scene: Scene) -> Mend:
    fleet, node = scene.fleet, scene.node
    family = scene.families(node)
    at_ns = now_ns()
    fleet.end(node, signal.SIGKILL)

    def mend() -> None:
        scene.note_all_gone("agent SIGKILL -> no process of its workers is left", at_ns, family)
        scene.note_next_round(f"{scene.whose_agent} SIGKILL -> the other three in the next round", at_ns)
        fleet.start_agents(node)

    return mend


def end_agent(scene: Scene) -> Mend:
    fleet, node = scene.fleet, scene.node
    fleet.agents[node].signal(signal.SIGTERM)

    def mend() -> None:
        fleet.agents[node].wait()
        fleet.start_agents(node)

    return mend


def freeze_agent_briefly(scene: Scene) -> Mend:
    return _freeze_briefly(scene, scene.fleet.agents[scene.node].pid)


def freeze_agent(scene: Scene) -> Mend:
    """So long that it is counted as lost."""
    fleet, node, at_ns = scene.fleet, scene.node, now_ns()
    agent = fleet.agents[node].pid
    os.kill(agent, signal.SIGSTOP)

    def mend() -> None:
        _wait_lost(scene, "agent SIGSTOP past the lease", at_ns)
        os.kill(agent, signal.SIGCONT)

    return mend


def _wait_lost(scene: Scene, what: str, at_ns: int) -> None:
    fleet, node = scene.fleet, scene.node

    def lost() -> bool:
        found = fleet.nodes().get(node)
        return found is not None and found.state == job_service_pb2.NODE_STATE_LOST

    fleet.wait(lost, f"{node} is not counted as lost")
    scene.note_next_round(f"{what} -> the other three in the next round", at_ns)


# --- a keeper, a worker


def kill_keeper(scene: Scene) -> Mend:
    at_ns = kill(scene.keeper)
    return lambda: scene.note_next_round("keeper SIGKILL -> next round", at_ns)


def freeze_keeper_briefly(scene: Scene) -> Mend:
    return _freeze_briefly(scene, scene.keeper)


def freeze_keeper(scene: Scene) -> Mend:
    return _freeze_past_lease(scene, scene.keeper)


def kill_worker(scene: Scene) -> Mend:
    at_ns = kill(scene.worker().pid)
    return lambda: scene.note_next_round("worker SIGKILL -> next round", at_ns)


def freeze_worker_briefly(scene: Scene) -> Mend:
    return _freeze_briefly(scene, scene.worker().pid)


def freeze_worker(scene: Scene) -> Mend:
    return _freeze_past_lease(scene, scene.worker().pid)


def _freeze_briefly(scene: Scene, pid: int) -> Mend:
    at_ns = now_ns()
    os.kill(pid, signal.SIGSTOP)

    def mend() -> None:
        scene.pause(at_ns)
        _thaw(pid)
        scene.paused(at_ns)

    return mend


def _freeze_past_lease(scene: Scene, pid: int) -> Mend:
    at_ns = now_ns()
    os.kill(pid, signal.SIGSTOP)

    def mend() -> None:
        sleep_past_lease(at_ns)
        _thaw(pid)

    return mend


def _thaw(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # ended by a SIGKILL in the meantime
        os.kill(pid, signal.SIGCONT)


# --- several


def kill_agent_and_coordinator(scene: Scene) -> Mend:
    """The obituary finds nobody at first."""
    fleet, node, family = scene.fleet, scene.node, scene.families(scene.node)
    at_ns = now_ns()
    fleet.end(node, signal.SIGKILL)
    fleet.coordinator.signal(signal.SIGKILL)
    fleet.coordinator.wait()

    def mend() -> None:
        scene.note_all_gone("agent and coordinator SIGKILL -> no process of its workers is left", at_ns, family)
        fleet.serve_again()
        scene.note_next_round("agent and coordinator SIGKILL -> the other three in the next round", at_ns)
        fleet.start_agents(node)

    return mend


def kill_two_workers(scene: Scene) -> Mend:
    """On two nodes at once: one restart, whoever reports first."""
    nodes = scene.rng.sample(scene.before.nodes, 2)
    victims = [scene.before.pids[WORKERS_PER_NODE * scene.before.nodes.index(node)] for node in nodes]
    at_ns = min([kill(pid) for pid in victims])
    return lambda: scene.note_next_round("two workers SIGKILL -> next round", at_ns)


# --- the network: the router between the agent's host and the coordinator's says nothing, it loses what it gets

Ways = Callable[[str], tuple[Way, ...]]

COORDINATOR = "coordinator"
DIRECTIONS: Mapping[str, Ways] = {
    "both ways": lambda node: both_ways(node, COORDINATOR),
    "from the agent": lambda node: ((node, COORDINATOR),),
    "to the agent": lambda node: ((COORDINATOR, node),),
}


def part_briefly(ways: Ways) -> Blow:
    def blow(scene: Scene) -> Mend:
        at_ns, heal = now_ns(), _silence(scene, *ways(scene.node))

        def mend() -> None:
            scene.pause(at_ns)
            heal()

        return mend

    return blow


def part(direction: str) -> Blow:
    """So long that the agent is counted as lost."""

    def blow(scene: Scene) -> Mend:
        at_ns, heal = now_ns(), _silence(scene, *DIRECTIONS[direction](scene.node))
        families = scene.families(scene.node)

        def mend() -> None:
            scene.note_all_gone(f"partition {direction} -> no process of its workers is left", at_ns, families)
            _wait_lost(scene, f"partition {direction}", at_ns)
            healed_ns = now_ns()
            heal()
            scene.fleet.wait_healthy()
            scene.note(f"partition {direction} healed -> four nodes in a round again", healed_ns)

        return mend

    return blow


def unplug(scene: Scene) -> Mend:
    """The agent's host sees its own link down, until the agent is counted as lost."""
    at_ns, stack = now_ns(), contextlib.ExitStack()
    stack.enter_context(_network(scene).unplugged(scene.node))

    def mend() -> None:
        _wait_lost(scene, "link down", at_ns)
        stack.close()

    return mend


def isolate_coordinator(scene: Scene) -> Mend:
    """Nobody reaches it and nobody is refused, until every agent has ended its workers."""
    at_ns = now_ns()
    heal = _silence(scene, *(way for node in scene.fleet.agents for way in both_ways(node, COORDINATOR)))

    def mend() -> None:
        scene.note_all_gone("coordinator partitioned from all -> no worker is left", at_ns, scene.families())
        heal()

    return mend


def _silence(scene: Scene, *ways: Way) -> Mend:
    stack = contextlib.ExitStack()
    stack.enter_context(_network(scene).silence(*ways))
    return stack.close


def _network(scene: Scene) -> Network:
    network = scene.fleet.network
    assert network is not None, "chosen only if there is one"
    return network


# --- all of them


def _faults() -> Iterator[Fault]:
    running, starting, stopping, gathering = phases.running, phases.starting, phases.stopping, phases.gathering
    for phase in (running, starting, stopping, gathering):
        at = phase.__name__
        rests = phase is running
        failure = int(phase in (running, starting))
        yield Fault(name=f"coordinator SIGKILL, {at}", phase=phase, blow=kill_coordinator, unnoticed=rests)
        yield Fault(name=f"coordinator SIGTERM, {at}", phase=phase, blow=stop_and_start_coordinator, unnoticed=rests)
        yield Fault(
            name=f"coordinator SIGSTOP briefly, {at}", phase=phase, blow=freeze_coordinator_briefly, unnoticed=rests
        )
        yield Fault(name=f"agent SIGKILL, {at}", phase=phase, blow=kill_agent)
        yield Fault(name=f"agent SIGTERM, {at}", phase=phase, blow=end_agent)
        yield Fault(name=f"agent SIGSTOP briefly, {at}", phase=phase, blow=freeze_agent_briefly, unnoticed=rests)
        yield Fault(name=f"agent SIGSTOP past the lease, {at}", phase=phase, blow=freeze_agent, slow=True)
        yield Fault(name=f"agent and coordinator SIGKILL, {at}", phase=phase, blow=kill_agent_and_coordinator)
        yield Fault(name=f"keeper SIGKILL, {at}", phase=phase, blow=kill_keeper, charged=failure)
        yield Fault(name=f"keeper SIGSTOP briefly, {at}", phase=phase, blow=freeze_keeper_briefly, unnoticed=rests)
        if phase is not gathering:
            yield Fault(name=f"worker SIGKILL, {at}", phase=phase, blow=kill_worker, charged=failure)
            yield Fault(name=f"worker SIGSTOP briefly, {at}", phase=phase, blow=freeze_worker_briefly, unnoticed=rests)
    yield Fault(name="two workers SIGKILL, running", phase=running, blow=kill_two_workers, charged=1)
    yield Fault(name="coordinator SIGSTOP past the lease, running", phase=running, blow=freeze_coordinator, slow=True)
    yield Fault(
        name="keeper SIGSTOP past the lease, running", phase=running, blow=freeze_keeper, unnoticed=True, slow=True
    )
    yield Fault(
        name="worker SIGSTOP past the lease, running", phase=running, blow=freeze_worker, unnoticed=True, slow=True
    )
    yield from _network_faults()


def _network_faults() -> Iterator[Fault]:
    for phase in (phases.running, phases.starting, phases.stopping, phases.gathering):
        for direction, ways in DIRECTIONS.items():
            yield Fault(
                name=f"brief partition {direction}, {phase.__name__}",
                phase=phase,
                blow=part_briefly(ways),
                unnoticed=None if phase is phases.running else False,
                needs_network=True,
            )
    blows = {f"partition {direction}": part(direction) for direction in DIRECTIONS}
    blows |= {"link down": unplug, "coordinator partitioned from all": isolate_coordinator}
    for name, blow in blows.items():
        yield Fault(name=f"{name}, running", phase=phases.running, blow=blow, slow=True, needs_network=True)


FAULTS = tuple(_faults())
