"""Fixed sequences of faults, for figures that random ones cannot promise to give."""

from __future__ import annotations

import signal
from random import Random

from chaos.faults import FAULTS, Fault
from chaos.fleet import NODES, SPARE, Fleet, Wrong, kill
from chaos.report import Report
from chaos.scene import Scene

KILLS = 20


def play_all(fleet: Fleet, rng: Random, report: Report) -> None:
    for drill in (kill_coordinator_again_and_again, kill_each_agent, kill_each_agent_beside_a_standby):
        print(f"drill: {(drill.__doc__ or '').splitlines()[0]}", flush=True)
        drill(fleet, rng, report)
        if wrong := fleet.lives.check():
            raise Wrong("; ".join(wrong))


def kill_coordinator_again_and_again(fleet: Fleet, rng: Random, report: Report) -> None:
    """Twenty SIGKILLs of the coordinator in a row: every pid is what it was."""
    before = fleet.wait_healthy()
    fault = _fault("coordinator SIGKILL, running")
    for _ in range(KILLS):
        fault.play(Scene(fleet, rng, report.timings))
        report.faults[fault.name] += 1
    after = fleet.wait_healthy()
    if (after.pids, after.keepers, after.round) != (before.pids, before.keepers, before.round):
        raise Wrong(f"{KILLS} coordinator SIGKILLs in a row: {before} became {after}")


def kill_each_agent(fleet: Fleet, rng: Random, report: Report) -> None:
    """SIGKILL of each agent of four, rank 0's in between."""
    fault = _fault("agent SIGKILL, running")
    for rank in (0, 1, 0, 2, 0, 3):
        scene = Scene(fleet, rng, report.timings)
        scene.node = scene.before.nodes[rank]
        fault.play(scene)
        report.faults[fault.name] += 1


def kill_each_agent_beside_a_standby(fleet: Fleet, rng: Random, report: Report) -> None:
    """The same with a fifth agent standing by: the world never shrinks."""
    fleet.start_agents(SPARE)
    for rank in range(len(NODES)):
        before = fleet.wait_healthy()
        node = before.nodes[rank]
        at_ns = kill(fleet.agents[node].pid)
        fleet.agents.pop(node).wait()
        workers = fleet.wait_complete(before.round + 1)
        if workers[0].round != before.round + 1 or workers[0].world_size != len(before.pids):
            raise Wrong(f"with a standby, SIGKILL of an agent led to {workers}")
        what = "agent SIGKILL, a standby attached -> four in the next round"
        report.timings[what].append((max(life.born_ns for life in workers) - at_ns) / 1e9)
        report.faults["agent SIGKILL, a standby attached"] += 1
        if fleet.wait_healthy().restart_count != before.restart_count:
            raise Wrong("the loss of an agent spent a restart")
        fleet.start_agents(node)
    standby = next(iter(fleet.agents.keys() - set(fleet.wait_healthy().nodes)))
    fleet.end(standby, signal.SIGTERM)
    if standby != SPARE:
        fleet.end(SPARE, signal.SIGTERM)
        fleet.start_agents(standby)


def _fault(name: str) -> Fault:
    return next(fault for fault in FAULTS if fault.name == name)
