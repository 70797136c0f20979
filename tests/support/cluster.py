"""A real coordinator and real agents, each a process of its own, on loopback.

Everything inherits one environment mark, so that a test can see that nothing outlives it; what does is ended by pid.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from rallypoint.security.client import NO_SECURITY, ClientSecurity, call_metadata, open_channel
from rallypoint.v1 import job_service_pb2, job_service_pb2_grpc, types_pb2
from support.netns import Network
from support.processes import MARK_VARIABLE, is_alive, new_mark, pids_with_mark, wait_until

# To the end of the line: one that is read while it is being written runs into what is on standard error.
LISTENING = re.compile(r"rallypoint coordinator listening on (\S+)\n")
WORKERS = Path(__file__).parent.parent / "process" / "workers"


class Process:
    """One command of ours, with its output in files. Use it through :class:`ProcessCluster`."""

    def __init__(self, name: str, argv: list[str], folder: Path, env: dict[str, str]) -> None:
        self.name = name
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self.popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def output(self) -> str:
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def wait(self, timeout: float = 150) -> int:
        """The exit status; AssertionError with the output if it does not end."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout} s:\n{self.output}") from None

    def wait_for(self, pattern: str, timeout: float = 90) -> re.Match[str]:
        """Wait until the output matches."""
        try:
            return wait_until(lambda: re.search(pattern, self.output), timeout, f"{self.name}: no {pattern!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None


class _ShowToken(grpc.UnaryUnaryClientInterceptor):
    """Puts the token on every call."""

    def __init__(self, security: ClientSecurity) -> None:
        self._metadata = call_metadata(security)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details._replace(metadata=self._metadata), request)


class ProcessCluster:
    """A context: on leaving it every process is ended and seen to be gone.

    With a network each process runs on the host of its name, the coordinators on ``coordinator``. ``security`` is how
    the test itself reaches them.
    """

    def __init__(self, folder: Path, network: Network | None = None, security: ClientSecurity = NO_SECURITY) -> None:
        self.folder = folder
        self.security = security
        self.network = network
        self.mark = new_mark()
        self.processes: list[Process] = []
        self.address = ""

    def __enter__(self) -> ProcessCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.signal(signal.SIGCONT)
                process.signal(signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_until(self._has_ended, 20, "something was left")
        left = self._alive()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.popen.wait()
        if kind is None:
            assert not left, f"left behind: {left}"

    def _has_ended(self) -> bool:
        """Whether nothing is alive. An obituary that nobody is left to hear is ended: it would go on for a lease."""
        alive = self._alive()
        if all(process.popen.poll() is not None for process in self.processes):
            for pid in self.pids("rallypoint_agent.obituary"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return not alive

    def _alive(self) -> set[int]:
        for process in self.processes:
            process.popen.poll()
        return pids_with_mark(self.mark)

    # --- processes

    def coordinator(self, *args: str, listen: str = "") -> Process:
        """A coordinator that serves. The second one is called ``coordinator-2``, and so on."""
        earlier = sum(process.name.startswith("coordinator") for process in self.processes)
        name = f"coordinator-{earlier + 1}" if earlier else "coordinator"
        if self.network is not None:
            args = ("--insecure", *args)
        address = self.network.address("coordinator") if self.network is not None else "127.0.0.1"
        process = self.start(name, "coordinator", "--listen", listen or f"{address}:0", *args)
        self.address = process.wait_for(LISTENING.pattern).group(1)
        return process

    def coordinator_again(self, *args: str) -> Process:
        """Another one at the address of the last one, which must have ended."""
        return self.coordinator(*args, listen=self.address)

    def agent(self, name: str, *args: str, **env: str) -> Process:
        """``rallypoint run`` as this node, pointed at the coordinator, with these further arguments."""
        return self.start(name, "run", "--coordinator", self.address, "--node-name", name, *args, **env)

    def start(self, name: str, *argv: str, before: Sequence[str] = (), **env: str) -> Process:
        """Any subcommand; ``before``: a command that runs it."""
        # A folder of its own, else what an agent of another test left would be looked for.
        own = {MARK_VARIABLE: self.mark, "LOGLEVEL": "INFO", "TMPDIR": str(self.folder)}
        full = {**os.environ, **own, **env}
        command = [*self._on_host(name), *before, sys.executable, "-m", "rallypoint", *argv]
        process = Process(name, command, self.folder, full)
        self.processes.append(process)
        return process

    def _on_host(self, name: str) -> list[str]:
        if self.network is None:
            return []
        return self.network.enter("coordinator" if name.startswith("coordinator") else name)

    def worker(self, name: str) -> str:
        """The path of one of the test's worker scripts."""
        return str(WORKERS / name)

    def pids(self, of: str) -> set[int]:
        """Live processes of this cluster whose command line has this word."""
        return {pid for pid in pids_with_mark(self.mark) if of in _command_line(pid)}

    # --- what the coordinator says

    @contextlib.contextmanager
    def _stub(self) -> Iterator[job_service_pb2_grpc.JobServiceStub]:
        with open_channel(self.address, self.security, [("grpc.enable_http_proxy", 0)]) as channel:
            yield job_service_pb2_grpc.JobServiceStub(grpc.intercept_channel(channel, _ShowToken(self.security)))

    def job(self, name: str) -> job_service_pb2.Job:
        with self._stub() as stub:
            request = job_service_pb2.GetJobRequest(name=f"jobs/{name}")
            return stub.GetJob(request, timeout=10, wait_for_ready=True).job

    def nodes(self, job: str) -> dict[str, job_service_pb2.Node]:
        with self._stub() as stub:
            request = job_service_pb2.ListNodesRequest(parent=f"jobs/{job}")
            nodes = stub.ListNodes(request, timeout=10, wait_for_ready=True).nodes
            return {node.name.rpartition("/")[2]: node for node in nodes}

    def workers(self, job: str) -> list[job_service_pb2.Worker]:
        with self._stub() as stub:
            request = job_service_pb2.ListWorkersRequest(parent=f"jobs/{job}")
            return list(stub.ListWorkers(request, timeout=10, wait_for_ready=True).workers)

    def events(self, job: str, *kinds: job_service_pb2.JobEventKind.ValueType) -> list[job_service_pb2.JobEvent]:
        with self._stub() as stub:
            request = job_service_pb2.ListJobEventsRequest(parent=f"jobs/{job}", kinds=kinds)
            return list(stub.ListJobEvents(request, timeout=10, wait_for_ready=True).events)

    def restart(self, job: str) -> None:
        with self._stub() as stub:
            stub.RestartJob(job_service_pb2.RestartJobRequest(name=f"jobs/{job}"), timeout=10, wait_for_ready=True)

    def cancel(self, job: str) -> None:
        with self._stub() as stub:
            stub.CancelJob(job_service_pb2.CancelJobRequest(name=f"jobs/{job}"), timeout=10, wait_for_ready=True)

    def drain(self, job: str, node: str) -> None:
        with self._stub() as stub:
            request = job_service_pb2.DrainNodeRequest(name=f"jobs/{job}/nodes/{node}")
            stub.DrainNode(request, timeout=10, wait_for_ready=True)

    def wait_for_round(self, job: str, number: int, timeout: float = 60) -> list[job_service_pb2.Worker]:
        """Wait until every worker of the round runs."""

        def all_run() -> list[job_service_pb2.Worker] | None:
            try:
                workers = self.workers(job)
            except grpc.RpcError:
                return None
            up = workers and all(w.round == number and w.state == types_pb2.WORKER_STATE_HEALTHY for w in workers)
            return workers if up else None

        try:
            return wait_until(all_run, timeout, f"round {number} of {job} does not run")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.transcript()}") from None

    def wait_for_state(self, job: str, state: types_pb2.JobState.ValueType, timeout: float = 60) -> job_service_pb2.Job:
        def reached() -> job_service_pb2.Job | None:
            try:
                found = self.job(job)
            except grpc.RpcError:
                return None
            return found if found.state == state else None

        try:
            return wait_until(reached, timeout, f"{job} is not {types_pb2.JobState.Name(state)}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.transcript()}") from None

    def transcript(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.output}" for process in self.processes)


def wait_gone(pids: set[int], timeout: float = 30) -> None:
    """Wait until none of these processes is alive."""
    wait_until(lambda: not any(is_alive(pid) for pid in pids), timeout, f"still alive of {pids}")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
