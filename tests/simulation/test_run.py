"""Many seeds: in one process or in several, and with a death that leaves nothing behind."""

from __future__ import annotations

import gc
import pickle
from dataclasses import replace

from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.server.driver import DriverOptions
from simulation.coordinator_host import CoordinatorHost
from simulation.network import Network
from simulation.options import draw_options
from simulation.oracles import Oracles
from simulation.run import results
from simulation.world import Violation, World


def test_what_comes_of_a_seed_is_the_same_in_another_process() -> None:
    seeds = range(40, 46)
    alone = list(results(seeds, None, jobs=1))
    beside = sorted(results(seeds, None, jobs=2), key=lambda result: result.seed)
    assert alone == beside


def test_a_violation_comes_through_to_another_process() -> None:
    found = pickle.loads(pickle.dumps(Violation("C1", "round 3 after 4")))
    assert (str(found), found.invariant) == ("C1: round 3 after 4", "C1")


def test_a_question_to_a_coordinator_that_dies_before_it_looks_leaves_nothing_behind() -> None:
    """Python warns of what is never awaited, and a warning fails a test."""
    world = World(1)
    options = draw_options(world)
    host = CoordinatorHost(world, Network(world, options.delay_ms), Oracles(world, options), options)
    host.start()
    world.run(60_000, lambda: host.cluster is not None)
    world.run(world.now_ms + 1, lambda: False)
    answers: list[object] = []
    host.read(lambda cluster, stamp: cluster.epoch, answers.append)
    host.crash()
    world.run(world.now_ms + 1, lambda: False)
    host.end()
    gc.collect()
    assert answers == []


def test_what_is_forgotten_of_few_lives_or_nodes_need_not_be_told() -> None:
    options = draw_options(World(0))
    retentions = Retention(), Retention(lives_max=1), Retention(nodes_max=5)
    kept = [replace(options, driver=DriverOptions(retention=retention)) for retention in retentions]
    assert [each.forgets_events for each in kept] == [False, True, True]
