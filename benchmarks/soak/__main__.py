"""Agents and one coordinator, all real processes, under random faults for an hour: ``make soak MINUTES=60 AGENTS=200``.

Beside them made-up agents, which are no more than the protocol, come and go some ten times a second, so that what each
leaves in the coordinator adds up, and so that what fills up is full early.

What it fails on: a restart, or the end of a round, that no fault explains, or one that a fault did not lead to; memory
or open files of the coordinator, or of an agent that no fault struck, that grow over the second half. The coordinator
is killed in the first third only, since memory that a process should have let go of shows in one that lives.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom

from soak.job import Setting, SoakJob, Turnover
from soak.made_up import Turmoil
from soak.samples import Samples, cpu_seconds, grown, resident_mib
from soak.view import View
from support.cluster import Process, ProcessCluster

SIZES = (2, 2, 4, 4, 4, 8, 8, 8, 16, 16, 32, 32, 64)
"""Nodes of the jobs: 200 in all. With fewer agents the large ones are left out, with more all come again."""
GAP_S = 10.0
COORDINATOR_GAP_S = 60.0
"""Between two SIGKILLs of the coordinator, on average; less in a run that would otherwise see fewer than ten or so."""
SAMPLE_EVERY_S = 1.0
TELL_EVERY_S = 60
LAST_KILL = 1 / 3
"""Of the run; what a fresh coordinator fills up with is full by the second half then, in a run of ten minutes."""
DATA = "data"
COORDINATOR_FLAGS = ("--retain-jobs", "20", "--snapshot-every", "1000", "--keep-events", "1")
"""What is kept is small, so that all of it is full, and something falls off, long before the second half."""


def sizes_for(agents: int) -> list[int]:
    """The jobs' sizes, as long as there are agents for them; one agent may be left over."""
    sizes: list[int] = []
    while (left := agents - sum(sizes)) >= SIZES[0]:
        for size in SIZES:
            if size <= left:
                sizes.append(size)
                left -= size
    return sizes


class Soak:
    """One run. ``folder``: the coordinator's data."""

    def __init__(self, cluster: ProcessCluster, view: View, options: argparse.Namespace) -> None:
        self._cluster = cluster
        self._view = view
        self._rng = Random(options.seed)
        self._length_s = 60 * options.minutes
        self._setting = Setting(cluster, view, threading.Event(), GAP_S)
        self._jobs = [
            SoakJob(self._setting, f"job-{number}", size, Random(f"{options.seed} {number}"))
            for number, size in enumerate(sizes_for(options.agents))
        ]
        self._turnover = Turnover(self._setting)
        self._turmoil = Turmoil(self._setting, Random(f"{options.seed} made up"))
        self._samples = Samples()
        self._killed = 0

    def play(self) -> list[str]:
        """What is wrong in the end; empty if nothing is."""
        for job in self._jobs:
            job.start_all()
            job.wait_rest()
            _tell(f"{job.name}: {job.size} nodes at rest")
        runs = [job.run for job in self._jobs] + [self._turnover.run, self._turmoil.run]
        threads = [threading.Thread(target=run, daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        try:
            self._watch()
        finally:
            self._setting.stop.set()
        for thread in threads:
            thread.join()
        return self._wrong() + self._at_the_end()

    def _watch(self) -> None:
        """Sample every second, kill the coordinator now and then in the first half, and tell how it goes."""
        began_s = time.monotonic()
        gap_s = min(COORDINATOR_GAP_S, LAST_KILL * self._length_s / 10)
        next_kill_s, next_word_s = self._rng.expovariate(1 / gap_s), 0.0
        while (elapsed_s := time.monotonic() - began_s) < self._length_s:
            if elapsed_s > next_kill_s and elapsed_s < LAST_KILL * self._length_s:
                self._kill_coordinator()
                next_kill_s = elapsed_s + self._rng.expovariate(1 / gap_s)
            self._samples.take(self._looked_at(), self._cluster.folder / DATA)
            if elapsed_s >= next_word_s:
                _tell(self._progress(elapsed_s))
                next_word_s += TELL_EVERY_S
            time.sleep(SAMPLE_EVERY_S)

    def _kill_coordinator(self) -> None:
        with self._view.heard:
            self._coordinator.signal(signal.SIGKILL)
            self._coordinator.wait()
        serve(self._cluster)
        self._killed += 1

    @property
    def _coordinator(self) -> Process:
        return [process for process in self._cluster.processes if process.name.startswith("coordinator")][-1]

    def _looked_at(self) -> dict[str, int]:
        """The coordinator, and of the largest and the smallest job an agent that is not struck, with its keeper."""
        found = {"coordinator": self._coordinator.pid}
        for job in {job.size: job for job in (self._jobs[0], self._jobs[-1])}.values():
            agent = f"agent in a job of {job.size} nodes"
            found |= {agent: job.agent(job.untouched), f"keeper of that {agent}": job.keeper(job.untouched)}
        return found

    def _progress(self, elapsed_s: float) -> str:
        faults, wrong = sum(self._struck().values()), len(self._wrong())
        changes = self._turmoil.changes.total()
        seen = f"{faults} faults, {changes} changes made up, {self._killed} coordinators killed, {wrong} wrong"
        return f"{elapsed_s / 60:.0f} min: {seen}; the coordinator has {resident_mib(self._coordinator.pid):.1f} MiB"

    def _struck(self) -> Counter[str]:
        return sum((job.struck for job in self._jobs), Counter())

    def _wrong(self) -> list[str]:
        return [wrong for job in self._jobs for wrong in job.wrong] + self._turnover.wrong + self._turmoil.wrong

    def _at_the_end(self) -> list[str]:
        """Print what was seen; end all jobs. What is wrong now."""
        lines = self._samples.lines()
        spent, charged = sum(job.restart_count for job in self._jobs), sum(job.charged for job in self._jobs)
        cpu = cpu_seconds(self._coordinator.pid)
        print(f"{len(self._jobs)} jobs of {', '.join(str(job.size) for job in self._jobs)} nodes, and short ones")
        for name, count in sorted(self._struck().items()):
            print(f"{count:6}  {name}")
        print(f"{self._killed:6}  coordinator SIGKILL\n{self._turnover.ended:6}  short jobs")
        for name, count in sorted(self._turmoil.changes.items()):
            print(f"{count:6}  {name}, made up")
        print(f"restarts spent: {spent}, by what struck: {charged}; CPU of the last coordinator: {cpu:.0f} s")
        for (whose, kind), line in lines.items():
            print(f"{whose}: {kind} {line.middle:.1f}, {line.rise:+.2f} over the second half")
        for job in self._jobs:
            self._view.cancel(job.name)
        for job in self._jobs:
            job.wait_all_ended()
        return grown(lines)


def serve(cluster: ProcessCluster) -> None:
    flags = ("--data-dir", str(cluster.folder / DATA), *COORDINATOR_FLAGS)
    cluster.coordinator_again(*flags) if cluster.address else cluster.coordinator(*flags)


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="rallypoint-soak-"))
    try:
        wrong = _play(folder, options)
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        return 130
    for line in wrong:
        print(f"WRONG: {line}")
    print(f"{options.minutes:g} minutes, {options.agents} agents, seed {options.seed}: {len(wrong) or 'nothing'} wrong")
    if wrong:
        print(f"logs in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _play(folder: Path, options: argparse.Namespace) -> list[str]:
    with ProcessCluster(folder) as cluster:
        serve(cluster)
        with View(cluster.address) as view:
            return Soak(cluster, view, options).play()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument(
        "--seed", type=int, default=SystemRandom().randrange(10**6), help="of the faults, not of their instants"
    )
    options = parser.parse_args(argv)
    if options.agents < SIZES[0] or options.minutes <= 0:
        parser.error(f"at least {SIZES[0]} agents, for more than 0 minutes")
    return options


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
