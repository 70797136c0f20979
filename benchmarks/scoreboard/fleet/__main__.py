"""A fleet by itself, or the bare echo server with as many streams: ``python -m scoreboard.fleet ours --agents 1000``.

Prints the figures as JSON. The server has one core and the load another one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from scoreboard.fleet import echo, load
from scoreboard.fleet.figures import EchoFigures, FleetFigures, Plan
from scoreboard.fleet.plain import plain
from scoreboard.fleet.servers import CLIENT_CORES, raise_open_files_limit


def main() -> int:
    args = _arguments()
    raise_open_files_limit()
    os.sched_setaffinity(0, CLIENT_CORES)
    with tempfile.TemporaryDirectory(prefix="rallypoint-fleet-", dir=args.folder) as folder:
        try:
            figures = asyncio.run(_measure(args, Path(folder)))
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
    print(json.dumps(plain(figures)), flush=True)
    return 0


async def _measure(args: argparse.Namespace, folder: Path) -> EchoFigures | FleetFigures:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    rate = args.rate or args.agents / 5
    plan = Plan(args.windows, args.window, args.tellings, args.returns)
    if args.what == "echo":
        return await echo.measure(folder, args.agents, rate=rate, plan=plan)
    return await load.measure(folder, args.agents, jobs=args.jobs, rate=rate, plan=plan)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scoreboard.fleet", description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=("ours", "echo"))
    parser.add_argument("--agents", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=1, help="so many, with as many nodes each")
    parser.add_argument("--rate", type=float, help="heartbeats a second; else each agent has one in five seconds")
    parser.add_argument("--windows", type=int, default=2, help="times of steady heartbeats")
    parser.add_argument("--window", type=float, default=5, help="how long each lasts, in seconds")
    parser.add_argument("--tellings", type=int, default=3, help="restarts, or messages to all")
    parser.add_argument("--returns", type=int, default=1, help="how often the coordinator is killed")
    parser.add_argument("--folder", help="where the journal is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
