"""Random faults in a row against real processes: ``make chaos N=100 SEED=...``.

Each agent is on a host of its own, made of a network namespace; where that is impossible all are on loopback, and
there are no partitions. The kinds and the victims of the faults follow from the seed, their instants do not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from chaos import drills
from chaos.faults import FAULTS, Fault
from chaos.fleet import HOSTS, NODES, Fleet
from chaos.report import Report
from chaos.scene import Scene
from support import netns
from support.cluster import ProcessCluster


def main(argv: list[str]) -> int:
    options = _options(argv)
    why_not = "" if netns.is_inside() else netns.why_impossible()
    if not netns.is_inside() and not why_not:
        command = [sys.executable, "-m", "chaos.run", *argv, "--seed", str(options.seed)]
        inside, env = netns.command_inside(command)
        os.execvpe(inside[0], inside, env)
    if why_not:
        print(f"no partitions, there can be no network namespaces: {why_not}")
    network = None if why_not else netns.Network(HOSTS)
    folder = Path(tempfile.mkdtemp(prefix="rallypoint-chaos-"))
    try:
        with ProcessCluster(folder, network) as cluster:
            report = _play(cluster, options)
    except Exception:
        traceback.print_exc()
        again = f"make chaos N={options.faults} SEED={options.seed}"
        print(f"FAILED with seed {options.seed}; logs in {folder}; again: {again}", flush=True)
        return 1
    shutil.rmtree(folder)
    print(report.text())
    print(f"{options.faults} faults, nothing wrong, seed {options.seed}")
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--quick", action="store_true", help="only faults for which no lease has to run out")
    parser.add_argument("--only", default="", help="only faults with this in their name")
    parser.add_argument("--drills", action="store_true", help="the fixed sequences after the random faults")
    return parser.parse_args(argv)


def _play(cluster: ProcessCluster, options: argparse.Namespace) -> Report:
    rng, report = random.Random(options.seed), Report()
    fleet = Fleet(cluster)
    fleet.start_agents(*NODES)
    kinds = _kinds(options, with_network=cluster.network is not None)
    for number, fault in enumerate(_chosen(rng, kinds, options.faults), start=1):
        began_s = time.monotonic()
        scene = Scene(fleet, rng, report.timings)
        print(f"{number:4} of {options.faults}: {fault.name}", end="", flush=True)
        fault.play(scene)
        print(f" ({scene.node}, round {scene.before.round}): {time.monotonic() - began_s:.1f} s", flush=True)
        report.faults[fault.name] += 1
    if options.drills:
        drills.play_all(fleet, rng, report)
    report.sentences = fleet.sentences
    return report


def _kinds(options: argparse.Namespace, *, with_network: bool) -> list[Fault]:
    return [
        fault
        for fault in FAULTS
        if options.only in fault.name
        and (with_network or not fault.needs_network)
        and not (options.quick and fault.slow)
    ]


def _chosen(rng: random.Random, kinds: list[Fault], count: int) -> list[Fault]:
    """Every kind as often as every other, give or take one, in an order without rule."""
    whole, rest = divmod(count, len(kinds))
    chosen = kinds * whole + rng.sample(kinds, rest)
    rng.shuffle(chosen)
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
