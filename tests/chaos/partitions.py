"""What strikes the network: the router between the agents' hosts and the coordinator's loses what it is to pass on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from chaos.blows import Blow, Mend
from chaos.fleet import now_ns
from chaos.scene import Scene
from support.netns import Network, Way, both_ways

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
            scene.wait_lost(f"partition {direction}", at_ns)
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
        scene.wait_lost("link down", at_ns)
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
