"""What strikes a process. A blow returns what is to be done once the phase in which it struck is left.

That is: wait for what has to come of it by itself, then put back what was taken away.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from chaos.fleet import WORKERS_PER_NODE, kill, now_ns, sleep_past_lease
from chaos.scene import Scene

Mend = Callable[[], None]
Blow = Callable[[Scene], Mend]


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
        scene.wait_lost("agent SIGSTOP past the lease", at_ns)
        os.kill(agent, signal.SIGCONT)

    return mend


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
    """On two nodes at once: one restart, whoever reports first. The first one may have the second stopped by then."""
    nodes = scene.rng.sample(scene.before.nodes, 2)
    victims = [scene.before.pids[WORKERS_PER_NODE * scene.before.nodes.index(node)] for node in nodes]
    at_ns = kill(victims[0])
    with contextlib.suppress(ProcessLookupError):
        kill(victims[1])
    return lambda: scene.note_next_round("two workers SIGKILL -> next round", at_ns)
