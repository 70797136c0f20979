"""Train a small model under three agents, kill a worker half way, and watch the job survive.

Starts a coordinator and three node agents on this machine, SIGKILLs one worker in the middle of
the training and checks what follows: one collective restart on all agents, a resume from the
checkpoint, an accurate model at the end. The exit status says whether all of that was so.
"""

import argparse
import ctypes
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import grpc

from rallypoint.v1.job_service_pb2 import GetJobRequest, Job, ListWorkersRequest, Worker
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint.v1.types_pb2 import JobState, WorkerState

TRAINING = Path(__file__).resolve().with_name("ddp_digits.py")
COORDINATOR = "coordinator"
NODES = ("node-a", "node-b", "node-c")
JOB_ID = "demo"
EPOCHS = 30
KILL_EPOCH = 10
KILL_RANK = 1
STEP_DELAY = 0.02  # seconds: the training takes long enough to be killed in its middle
LEAST_ACCURACY = 0.95

# What is shown of the workers' output. The logs have all of it.
WORKER_LINE = re.compile(r"\[default\d+\]:")
SHOWN_OF_WORKERS = re.compile(r"rank \d+ of|resumed from|epoch (1|\d*[05])/|test accuracy")

T = TypeVar("T")


class DemoFailed(Exception):
    """Something did not happen as it should; the text says what."""


class Stopped(Exception):
    """A signal asked the demo to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


# --- Printing ------------------------------------------------------------------------------------

BEGIN = time.monotonic()


def say(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # nobody reads any more (`make demo | head`): what runs must still be ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(source: str, line: str) -> None:
    say(f"{time.monotonic() - BEGIN:5.1f} s  {f'[{source}]':<13} {line[:160]}")


def worth_showing(line: str) -> bool:
    if WORKER_LINE.match(line):
        return SHOWN_OF_WORKERS.search(line) is not None
    return bool(line)


# --- Processes -----------------------------------------------------------------------------------


def become_subreaper() -> None:
    """What outlives its parent becomes our child, so that nothing we started can get lost."""
    pr_set_child_subreaper = 36  # linux/prctl.h
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def parent_of(pid: int) -> int:
    """0 if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    # The command's name, in parentheses, may hold anything, spaces and parentheses included.
    return int(stat.rpartition(")")[2].split()[1])


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return "ended"


def descends_from_us(pid: int) -> bool:
    ancestor = parent_of(pid)
    while ancestor not in (0, os.getpid()):
        ancestor = parent_of(ancestor)
    return ancestor != 0


def our_children() -> list[int]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if parent_of(pid) == os.getpid()]


def kill_our_children(seconds: float) -> list[int]:
    """Kills them, and theirs as they become ours; returns those that did not end in that time."""
    deadline = time.monotonic() + seconds
    while (pids := our_children()) and time.monotonic() < deadline:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)  # nobody else reaps it, so it is still that process
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    return pids


def child_environment() -> dict[str, str]:
    """Ours, without what would change the defaults of the commands."""
    foreign = ("PET_", "RALLYPOINT_", "TORCHELASTIC_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    environment["PYTHONUNBUFFERED"] = "1"
    # Everything runs on this machine, whose own name may not resolve to an address that works.
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment


class Process:
    """One of our commands. A thread hands its output on, line by line, until the pipe closes."""

    def __init__(self, name: str, arguments: list[str], news: "queue.Queue[tuple[str, str]]"):
        self.name = name
        self.lines: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "rallypoint", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=child_environment(),
            start_new_session=True,  # Ctrl-C reaches the demo alone, which ends things in order
        )
        self._news = news
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._news.put((self.name, line.rstrip()))

    def all_read(self) -> bool:
        return not self._reader.is_alive()

    def ended(self) -> bool:
        return self.popen.poll() is not None

    def found(self, pattern: str) -> list[str]:
        """The pattern's group in each line that has the pattern."""
        matches = (re.search(pattern, line) for line in self.lines)
        return [match[1] for match in matches if match]


# --- The job, over gRPC --------------------------------------------------------------------------


class JobReader:
    """Reads the job as anyone can: through the coordinator's public service."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        self._service = JobServiceStub(self._channel)
        self._shown = ""

    def close(self) -> None:
        self._channel.close()

    def job(self) -> Job | None:
        """None while there is none. Shows what is new since the last call."""
        try:
            job = self._service.GetJob(GetJobRequest(name=f"jobs/{JOB_ID}"), timeout=3).job
        except grpc.RpcError as error:
            self._raise_unless_passing(error)
            return None
        where = f"round {job.round}" if job.HasField("round") else "no round yet"
        state = JobState.Name(job.state).removeprefix("JOB_STATE_")
        text = f"{state}, {where}, restarts {job.restart_count}: {job.message}"
        if text != self._shown:
            show("GetJob", text)
            self._shown = text
        return job

    def job_in(self, state: JobState.ValueType) -> Job | None:
        job = self.job()
        return job if job is not None and job.state == state else None

    def workers(self) -> list[Worker]:
        """Of the current round, by rank; none before all of them have process ids."""
        try:
            request = ListWorkersRequest(parent=f"jobs/{JOB_ID}")
            workers = list(self._service.ListWorkers(request, timeout=3).workers)
        except grpc.RpcError as error:
            self._raise_unless_passing(error)
            return []
        complete = len(workers) == len(NODES) and all(worker.pid for worker in workers)
        return workers if complete else []

    @staticmethod
    def _raise_unless_passing(error: grpc.RpcError) -> None:
        code = error.code()
        passing = ("NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED")
        if code.name not in passing:
            raise DemoFailed(f"gRPC: {code.name}: {error.details()}") from error


# --- The stage: starts, shows, waits, ends -------------------------------------------------------


class Stage:
    """Holds everything that runs."""

    def __init__(self, directory: Path, seconds: float) -> None:
        self.directory = directory
        self.checkpoint = directory / "checkpoint.pt"
        self.processes: dict[str, Process] = {}
        self.each_turn: Callable[[], object] = lambda: None
        self._deadline = time.monotonic() + seconds
        self._news: queue.Queue[tuple[str, str]] = queue.Queue()
        self._signum = 0
        # The handler only takes note: an exception out of nowhere could cut the clean-up short.
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._note_signal)

    def _note_signal(self, signum: int, _frame: object) -> None:
        self._signum = signum

    @property
    def agents(self) -> list[Process]:
        return [self.processes[name] for name in NODES]

    def found(self, pattern: str) -> list[str]:
        return [text for agent in self.agents for text in agent.found(pattern)]

    def start(self, name: str, *arguments: str) -> Process:
        self.processes[name] = process = Process(name, list(arguments), self._news)
        return process

    def wait_for(self, what: str, condition: Callable[[], T | None], seconds: float) -> T:
        """Returns the first value of the condition that is true, and shows the output meanwhile."""
        deadline = min(time.monotonic() + seconds, self._deadline)
        while True:
            self._take_news(0.1)
            if self._signum:
                raise Stopped(self._signum)
            self.each_turn()
            if value := condition():
                return value
            self._check_exits()
            if time.monotonic() > deadline:
                over = "; the time for all of it is over: --timeout gives more" if deadline == self._deadline else ""
                raise DemoFailed(f"waited in vain for {what}{over}")

    def strays(self) -> list[int]:
        """Processes that became ours because their parents ended; reaps those that ended too."""
        started = {process.popen.pid for process in self.processes.values()}
        orphans = (pid for pid in our_children() if pid not in started)
        return [pid for pid in orphans if os.waitpid(pid, os.WNOHANG)[0] == 0]

    def end_all(self) -> list[int]:
        """The agents before the coordinator, kindly before hard. Returns what would not end."""
        everything = list(self.processes.values())
        self._terminate([process for process in everything if process.name in NODES], 15)
        self._terminate(everything, 5)
        for process in everything:
            process.popen.kill()
        self.settle(lambda: all(process.ended() for process in everything), 5)
        remaining = kill_our_children(10)
        self.settle(lambda: all(process.all_read() for process in everything), 2)
        return remaining

    def settle(self, condition: Callable[[], bool], seconds: float) -> None:
        """Gives the condition time to come true, but goes on if it does not."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self._take_news(0.05)
        self._take_news(0.0)

    def _terminate(self, processes: list[Process], seconds: float) -> None:
        for process in processes:
            process.popen.terminate()
        self.settle(lambda: all(process.ended() for process in processes), seconds)

    def _take_news(self, seconds: float) -> None:
        """Waits that long for a line, then takes all that have come."""
        try:
            name, line = self._news.get(timeout=seconds)
            while True:
                self.processes[name].lines.append(line)
                if worth_showing(line):
                    show(name, line)
                name, line = self._news.get_nowait()
        except queue.Empty:
            pass

    def _check_exits(self) -> None:
        for process in self.processes.values():
            status = process.popen.poll()
            if status or (status == 0 and process.name == COORDINATOR):
                self.settle(process.all_read, 2)
                raise DemoFailed(f"{process.name} ended with exit status {status}")


# --- The play ------------------------------------------------------------------------------------


def play(stage: Stage) -> bool:
    say("\n== 1. Start a coordinator")
    address = start_coordinator(stage)
    with closing(JobReader(address)) as reader:
        stage.each_turn = reader.job

        say(f"\n== 2. Start {len(NODES)} agents with a worker each, train until epoch {KILL_EPOCH}")
        for name in NODES:
            start_agent(stage, name, address)
        before = watch_training(stage, reader)

        say(f"\n== 3. Kill the worker of rank {KILL_RANK}")
        kill_worker(stage, reader)

        say("\n== 4. All workers start again, once, and go on from the checkpoint")
        watch_restart(stage)

        say("\n== 5. Train to the end")
        after = watch_end(stage, reader)
    say("\n== What was seen")
    return judge(stage, before, after)


def start_coordinator(stage: Stage) -> str:
    process = stage.start(COORDINATOR, COORDINATOR, "--listen", "127.0.0.1:0", "--store", "memory")
    pattern = r"rallypoint coordinator listening on (\S+:\d+)"
    return stage.wait_for("the coordinator to listen", lambda: process.found(pattern), 30)[0]


def start_agent(stage: Stage, name: str, address: str) -> None:
    # fmt: off
    stage.start(
        name, "run", "--coordinator", address, "--rdzv-id", JOB_ID, "--node-name", name,
        "--nnodes", str(len(NODES)), "--nproc-per-node", "1", "--max-restarts", "3",
        "--log-dir", str(stage.directory / name), "--tee", "3",
        str(TRAINING), "--checkpoint", str(stage.checkpoint),
        "--epochs", str(EPOCHS), "--step-delay", str(STEP_DELAY),
    )
    # fmt: on


def restarts_seen(agent: Process) -> list[int]:
    """With which restart counts this agent's worker began."""
    return [int(count) for count in agent.found(r"\[default\d+\]:rank \d+ of \d+, restart (\d+)")]


def watch_training(stage: Stage, reader: JobReader) -> Job:
    stage.wait_for("the workers", lambda: all(map(restarts_seen, stage.agents)), 90)
    # The script prints an epoch's line once the checkpoint of that epoch is in its place.
    stage.wait_for("a checkpoint", lambda: stage.found(rf"(epoch {KILL_EPOCH})/"), 90)
    return stage.wait_for("the job to run", lambda: reader.job_in(JobState.JOB_STATE_RUNNING), 10)


def kill_worker(stage: Stage, reader: JobReader) -> None:
    workers = stage.wait_for("the list of workers", reader.workers, 10)
    for worker in workers:
        state = WorkerState.Name(worker.state).removeprefix("WORKER_STATE_")
        show("ListWorkers", f"rank {worker.rank} on {worker.node}: pid {worker.pid}, {state}")
    victim = workers[KILL_RANK]
    if not descends_from_us(victim.pid):
        raise DemoFailed(f"pid {victim.pid} of {victim.name} is no process of this demo")
    show("demo", f"kill -9 {victim.pid}")
    os.kill(victim.pid, signal.SIGKILL)


def watch_restart(stage: Stage) -> None:
    def started_again() -> bool:
        return all(len(restarts_seen(agent)) > 1 for agent in stage.agents)

    killed = time.monotonic()
    stage.wait_for("the workers of all agents to start again", started_again, 60)
    stage.wait_for("the resume", lambda: stage.found(r"(resumed from epoch)"), 60)
    show("demo", f"training again {time.monotonic() - killed:.1f} s after the kill")


def watch_end(stage: Stage, reader: JobReader) -> Job:
    stage.wait_for("the agents to exit", lambda: all(a.ended() for a in stage.agents), 120)
    # An agent may leave something behind for a moment, the process that watched over it say.
    stage.settle(lambda: all(a.all_read() for a in stage.agents) and not stage.strays(), 5)
    success = JobState.JOB_STATE_SUCCEEDED
    return stage.wait_for("the job to have succeeded", lambda: reader.job_in(success), 10)


def judge(stage: Stage, before: Job, after: Job) -> bool:
    """Prints each expectation with what was seen. Returns whether all of them were met."""
    exits = [agent.popen.returncode for agent in stage.agents]
    restarts = [restarts_seen(agent) for agent in stage.agents]
    resumes = [int(epoch) for epoch in stage.found(r"resumed from epoch (\d+)")]
    accuracies = [float(share) for share in stage.found(r"test accuracy ([\d.]+)")]
    strays = [f"pid {pid}: {command_of(pid)}" for pid in stage.strays()]
    checks = [
        (exits == [0] * len(NODES), f"every agent exited with 0: {exits}"),
        (restarts == [[0, 1]] * len(NODES), f"every worker restarted once: {restarts}"),
        (after.restart_count == 1, f"the job counts one restart: {after.restart_count}"),
        (after.round == before.round + 1, f"in the round after {before.round}: {after.round}"),
        (after.uid == before.uid, f"it is the same job: {after.uid}"),
        (after.state == JobState.JOB_STATE_SUCCEEDED, f"its state: {JobState.Name(after.state)}"),
        (
            len(resumes) == 1 and KILL_EPOCH <= resumes[0] < EPOCHS,
            f"it resumed once, from epoch {KILL_EPOCH} or a later one: {resumes}",
        ),
        (
            len(accuracies) == 1 and accuracies[0] >= LEAST_ACCURACY,
            f"test accuracy of at least {LEAST_ACCURACY}: {accuracies}",
        ),
        (not strays, f"nothing outlived the agents: {strays}"),
    ]
    for met, text in checks:
        say(f"  {'ok    ' if met else 'FAILED'}  {text}")
    return all(met for met, _ in checks)


def show_last_lines(stage: Stage, count: int = 15) -> None:
    for process in stage.processes.values():
        say(f"\n-- the last lines of {process.name}")
        for line in process.lines[-count:]:
            say(f"  {line}")


def perform(stage: Stage) -> int:
    """Returns the exit status. Whatever happens, nothing that the play started runs on."""
    status = 1
    try:
        status = 0 if play(stage) else 1
    except DemoFailed as failure:
        say(f"\nFAILED: {failure}")
    except Stopped as stop:
        say(f"\n{stop}")
        status = 128 + stop.signum
    finally:
        if remaining := stage.end_all():
            say(f"FAILED: these processes would not end: {remaining}")
            status = status or 1
    if status == 1:
        show_last_lines(stage)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timeout", type=float, default=600, help="seconds, for all of it; default: %(default)s")
    parser.add_argument("--keep", action="store_true", help="keep the logs and the checkpoint")
    args = parser.parse_args()

    become_subreaper()
    directory = Path(tempfile.mkdtemp(prefix="rallypoint-demo-"))
    status = perform(Stage(directory, args.timeout))
    if args.keep or status == 1:
        say(f"\nlogs and checkpoint: {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    verdict = {0: "The job survived", 1: "FAILED"}.get(status, "Stopped")
    say(f"\n{verdict}, after {time.monotonic() - BEGIN:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
