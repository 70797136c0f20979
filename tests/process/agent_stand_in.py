"""An agent in miniature, to be killed: ``agent_stand_in.py PLAN``.

PLAN is a JSON file. Always: ``log``, the file to append to what happens, one JSON list a line;
``workers``, a list of argvs, and their ``env``. If wanted:
``obituary``, an argv, and its ``obituary_env``;
``bystander``, the argv of a child that is none of the keeper's, and its ``bystander_env``;
``hold_socket``: fork a process that keeps the agent's descriptors open;
``fence_on_usr1``: at SIGUSR1 arm the fence, to strike after so many seconds;
``close_on_term``: at SIGTERM close the keeper and exit;
``close_streams``: run without standard input, output and error.
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from rallypoint_agent.keeper import Keeper, KeeperDied, WorkerCommand, sweep_children


class StandIn:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.caught: set[int] = set()
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self.caught.add(number))
        self.keeper = Keeper.start()
        self.say("Keeper", self.keeper.pid)
        self.kept: list[int] = []

    def say(self, *what: object) -> None:
        with open(self.plan["log"], "a") as log:
            log.write(json.dumps(what) + "\n")

    def prepare(self) -> None:
        if obituary := self.plan.get("obituary"):
            self.keeper.obituary(obituary, self.plan["obituary_env"], timeout=30)
        if bystander := self.plan.get("bystander"):
            self.kept.append(subprocess.Popen(bystander, env=self.plan["bystander_env"]).pid)
            self.say("Bystander")
        if self.plan.get("hold_socket"):
            self.hold_socket()

    def hold_socket(self) -> None:
        pid = os.fork()
        while pid == 0:
            signal.pause()
        self.say("Holder", pid)

    def spawn(self) -> None:
        argvs = enumerate(self.plan["workers"])
        env = self.plan["env"]
        self.keeper.spawn(0, [WorkerCommand(local_rank=rank, argv=tuple(argv), env=env) for rank, argv in argvs])

    def run(self) -> None:
        while True:
            for event in self.keeper.wait(0.02):
                self.say(type(event).__name__, str(event))
                if isinstance(event, KeeperDied):
                    sweep_children(self.kept)
                    self.say("Swept")
            self.heed_signals()

    def heed_signals(self) -> None:
        if signal.SIGUSR1 in self.caught:
            self.caught.remove(signal.SIGUSR1)
            term_at = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(self.plan["fence_on_usr1"] * 1e9)
            self.keeper.fence(term_at_ns=term_at, kill_at_ns=term_at + 50_000_000)
            self.say("Armed")
        if signal.SIGTERM in self.caught and self.plan.get("close_on_term"):
            self.keeper.close()
            self.say("Closed")
            sys.exit()


def main() -> None:
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    if plan.get("close_streams"):
        os.closerange(0, 3)
    agent = StandIn(plan)
    agent.prepare()
    agent.spawn()
    agent.run()


main()
