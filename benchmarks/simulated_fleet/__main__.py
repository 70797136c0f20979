"""Tells the stories of fleets: ``python -m simulated_fleet 1x1000 1x100000 1000x100``.

Each is jobs x nodes. What an event takes is compared with the first one's.
"""

from __future__ import annotations

import gc
import sys

from simulated_fleet import table
from simulated_fleet.fleet import Fleet
from simulated_fleet.holdings import holdings_of

DEFAULT = ("1x1000", "1x10000", "100x100")


def tell(jobs: int, nodes: int) -> dict[str, float]:
    """Tell the story of one fleet. Returns the core's time for each event, by phase."""
    agents, fleet, took_us = jobs * nodes, Fleet(jobs, nodes), {}
    print(f"\n{jobs:,} job{'s' * (jobs > 1)} of {nodes:,} nodes with 8 workers each\n{table.heading()}", flush=True)
    for phase in fleet.story():
        if phase.news.events.total() >= agents:
            took_us[phase.name] = table.core_us(phase.news)
        print(table.line(phase, agents), flush=True)
        print(table.kinds(phase, agents))
        if phase.records.number.total() == 0:
            took_us["heartbeats"] = table.core_us(phase.renewal)
            print(table.renewals(phase, agents))
            print(table.held(holdings_of(fleet.coordinator, fleet.agents[0].job), agents), flush=True)
    print(f"replay of the journal up to the restart: {fleet.replay_s:.2f} s CPU")
    return took_us


def compare(shape: str, took_us: dict[str, float], first_us: dict[str, float]) -> str:
    ratios = (f"{name} {took_us[name] / first_us[name]:.2f}" for name in first_us)
    return f"core time for an event of {shape}, as many times that of the first fleet: {', '.join(ratios)}"


def main(shapes: list[str]) -> int:
    gc.disable()  # a coordinator freezes what it starts with, and nothing here refers to itself
    print(table.LEGEND)
    first_us: dict[str, float] = {}
    for shape in shapes or DEFAULT:
        jobs, nodes = map(int, shape.split("x"))
        took_us = tell(jobs, nodes)
        first_us = first_us or took_us
        print(compare(shape, took_us, first_us), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
