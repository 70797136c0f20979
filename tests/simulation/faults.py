"""Faults: which come when, and how each is made to happen."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from rallypoint.model import WatchdogStatus
from rallypoint_agent.core.events import TimerExpired, WatchdogChanged
from simulation.agent_process import AgentProcess
from simulation.coordinator_host import NORMAL_DOWN_MS, CoordinatorHost
from simulation.coordinator_process import CrashPoint
from simulation.disk import NORMAL_DISK_MS
from simulation.journal import Doubt
from simulation.network import Lane, Path
from simulation.node import Node
from simulation.options import CALM_DOWN_MAX_MS, FaultKind
from simulation.setting import Setting
from simulation.world import Action

SLOW_DISK_MS = (50, 3_000)
DISK_FAULT_MS = (500, 20_000)
UNREADABLE_TIMES = 3
PORTS_TAKEN_MS = (500, 10_000)
KEEPALIVE_MS = (3_000, 20_000)
FIRST_FAULT_MS = 500
DOUBLES_MAX = 3
LOSSES_MAX = 3
RUNS_ANEW_MAX = 5
RESTARTS_BELOW = 6
TIMER_EXPIRES_CHANCE = 0.3


class Faults:
    """Injects them one after another until :meth:`heal`. ``injected`` counts those that met something to break."""

    def __init__(self, setting: Setting, host: CoordinatorHost, nodes: list[Node]) -> None:
        self.injected: Counter[FaultKind] = Counter()
        self._options = setting.options
        self._workload = setting.workload
        self._specs = setting.specs
        self._world = setting.world
        self._chances = {kind: setting.world.chance(f"fault/{kind}") for kind in setting.options.fault_weights}
        self._chance = setting.world.chance("fault")
        self._host = host
        self._nodes = nodes
        self._cures: dict[int, Action] = {}
        self._cure_ids = 0
        self._inject: dict[FaultKind, Callable[[], bool]] = {
            FaultKind.STREAM_RESET: self._reset,
            FaultKind.SILENCE: lambda: self._silence(lambda path: (path.up, path.down)),
            FaultKind.SILENCE_UP: lambda: self._silence(lambda path: (path.up,)),
            FaultKind.SILENCE_DOWN: lambda: self._silence(lambda path: (path.down,)),
            FaultKind.COORDINATOR_CRASH: self._crash,
            FaultKind.COORDINATOR_CRASH_AT: self._crash_at,
            FaultKind.COORDINATOR_TERMINATED: self._terminate_coordinator,
            FaultKind.COORDINATOR_HOST_LOST: self._lose_host,
            FaultKind.SLOW_DISK: self._slow_disk,
            FaultKind.FULL_DISK: self._fill_disk,
            FaultKind.UNREADABLE_DISK: self._make_unreadable,
            FaultKind.APPEND_IN_DOUBT: self._doubt,
            FaultKind.ANOTHER_WRITER: self._begin_another,
            FaultKind.LOST_JOURNAL: self._lose_journal,
            FaultKind.AGENT_KILLED: self._kill,
            FaultKind.AGENT_FROZEN: self._freeze,
            FaultKind.AGENT_TERMINATED: self._terminate,
            FaultKind.KEEPER_KILLED: self._kill_keeper,
            FaultKind.AGENT_AND_KEEPER_KILLED: self._kill_both,
            FaultKind.NODE_POWER_LOST: self._lose_power,
            FaultKind.NODE_DOUBLED: self._double,
            FaultKind.RUN_ANEW: self._run_anew,
            FaultKind.PORTS_TAKEN: self._take_ports,
            FaultKind.WATCHDOG: self._watchdog,
        }

    def begin(self) -> None:
        self._host.down_ms = (50, CALM_DOWN_MAX_MS)
        for kind in self._options.fault_weights:
            self._next(kind)

    def heal(self) -> None:
        """End every fault; what is dead stays dead."""
        self._workload.healed = True
        self._world.tell("!", "all", "healed")
        self._host.down_ms = NORMAL_DOWN_MS
        self._host.crash_at(None)
        self._host.disk.unreadable = 0
        for number in list(self._cures):
            self._cure(number)

    def _next(self, kind: FaultKind) -> None:
        """Each kind comes by itself, so that one more kind leaves the others when they were."""
        gap_ms = self._options.fault_gap_ms / self._options.fault_weights[kind]
        delay_ms = FIRST_FAULT_MS + int(self._chances[kind].expovariate(1 / gap_ms))
        self._world.after(delay_ms, partial(self._inject_one, kind))

    def _inject_one(self, kind: FaultKind) -> None:
        if self._workload.healed:
            return
        self._chance = self._chances[kind]
        if self._inject[kind]():
            self.injected[kind] += 1
        self._next(kind)

    # --- cures

    def _cure_after(self, delay_ms: int, cure: Action) -> None:
        self._cure_ids += 1
        self._cures[self._cure_ids] = cure
        self._world.after(delay_ms, partial(self._cure, self._cure_ids))

    def _cure(self, number: int) -> None:
        cure = self._cures.pop(number, None)
        if cure is not None:
            cure()

    def _some_time_ms(self) -> int:
        """Around the lease, where things become interesting."""
        spec = self._chance.choice(self._options.jobs).spec
        return self._chance.between(100, spec.lease_ttl_ms * 9 // 5)

    # --- whom

    def _victim(self) -> AgentProcess | None:
        running = [node.process for node in self._nodes if node.process is not None]
        return self._chance.choice(running) if running else None

    def _some_nodes(self) -> list[Node]:
        """One, some, or all."""
        if self._chance.happens(0.5):
            return [self._chance.choice(self._nodes)]
        share = self._chance.choice((0.3, 0.6, 1.0))
        return [node for node in self._nodes if self._chance.happens(share)]

    # --- the network

    def _reset(self) -> bool:
        streams = [node.process.link.stream for node in self._some_nodes() if node.process is not None]
        for stream in streams:
            if stream is not None:
                self._world.tell("!", "network", f"stream {stream.number} is reset")
                stream.reset(tells_server=self._chance.happens(0.7))
                self._world.after(self._chance.between(*KEEPALIVE_MS), stream.expire_if_broken)
        return any(streams)

    def _silence(self, lanes_of: Callable[[Path], tuple[Lane, ...]]) -> bool:
        nodes = self._some_nodes()
        lanes = [lane for node in nodes for lane in lanes_of(node.path)]
        duration_ms = self._some_time_ms()
        names = ", ".join(node.name for node in nodes)
        ways = len(lanes_of(nodes[0].path)) if nodes else 0
        self._world.tell("!", "network", f"{names}: {ways} way silent for {duration_ms} ms")
        for lane in lanes:
            lane.silence()
            self._cure_after(duration_ms, lane.heal)
        for node in nodes:
            self._world.after(self._chance.between(*KEEPALIVE_MS), partial(self._keepalive, node, node.process))
        return bool(nodes)

    def _keepalive(self, node: Node, process: AgentProcess | None) -> None:
        """Either side may give up a stream that has been silent."""
        stream = process.link.stream if process is not None else None
        if process is None or stream is None or (node.path.is_open and not process.frozen and process.alive):
            return
        if self._chance.happens(0.5):
            stream.expire()
        if self._chance.happens(0.5):
            process.guard(partial(process.link.lose_stream, stream))

    # --- the coordinator

    def _crash(self) -> bool:
        up = self._host.cluster is not None
        self._host.crash()
        return up

    def _crash_at(self) -> bool:
        self._host.crash_at(self._chance.choice(list(CrashPoint)))
        return self._host.cluster is not None

    def _lose_host(self) -> bool:
        self._host.lose_power()
        self._cure_after(self._some_time_ms(), self._host.restore_power)
        return True

    def _terminate_coordinator(self) -> bool:
        up = self._host.cluster is not None
        self._host.terminate()
        return up

    # --- the journal

    def _slow_disk(self) -> bool:
        self._host.disk.delay_ms = SLOW_DISK_MS
        self._cure_after(self._chance.between(1_000, 20_000), self._mend_disk)
        return True

    def _fill_disk(self) -> bool:
        self._world.tell("!", "disk", "is full")
        self._host.disk.is_full = True
        self._cure_after(self._chance.between(*DISK_FAULT_MS), self._mend_disk)
        return True

    def _make_unreadable(self) -> bool:
        """Whoever reads the journal next finds that it cannot be read, so often."""
        self._host.disk.unreadable = self._chance.between(1, UNREADABLE_TIMES)
        return True

    def _mend_disk(self) -> None:
        self._host.disk.delay_ms, self._host.disk.is_full = NORMAL_DISK_MS, False

    def _doubt(self) -> bool:
        return self._host.doubt_append(self._chance.choice(list(Doubt)))

    def _begin_another(self) -> bool:
        self._world.tell("!", "disk", "another coordinator begins an epoch")
        return self._host.begin_another()

    def _lose_journal(self) -> bool:
        """Often all of it, else all since a backup."""
        disk = self._host.disk
        if disk.revision == 0 or self.injected[FaultKind.LOST_JOURNAL] >= LOSSES_MAX:
            return False
        self._host.lose_journal(0 if self._chance.happens(0.5) else self._chance.choice(disk.commits))
        return True

    # --- agents and nodes

    def _kill(self) -> bool:
        victim = self._victim()
        if victim is not None:
            self._world.tell("!", victim.name, "SIGKILL")
            victim.kill()
        return victim is not None

    def _kill_keeper(self) -> bool:
        victim = self._victim()
        if victim is None:
            return False
        self._world.tell("!", victim.name, "its keeper is killed")
        victim.keeper.die()
        return True

    def _kill_both(self) -> bool:
        """Nobody is left to write the obituary."""
        victim = self._victim()
        if victim is None:
            return False
        self._world.tell("!", victim.name, "SIGKILL to it and to its keeper")
        victim.kill_with_keeper()
        return True

    def _freeze(self) -> bool:
        victim = self._victim()
        if victim is None:
            return False
        duration_ms = self._some_time_ms()
        self._world.tell("!", victim.name, f"frozen for {duration_ms} ms")
        victim.freeze()
        self._cure_after(duration_ms, victim.thaw)
        node = next(node for node in self._nodes if node.process is victim)
        self._world.after(self._chance.between(*KEEPALIVE_MS), partial(self._keepalive, node, victim))
        return True

    def _terminate(self) -> bool:
        victim = self._victim()
        if victim is None:
            return False
        self._world.tell("!", victim.name, "SIGTERM")
        victim.signal(signal.SIGTERM)
        if self._chance.happens(0.2):
            self._world.after(self._chance.between(100, 3_000), partial(victim.signal, signal.SIGTERM))
        return True

    def _lose_power(self) -> bool:
        node = self._chance.choice(self._nodes)
        process = node.process
        returns = self._chance.happens(self._options.restart_chance)
        self._world.tell("!", node.name, f"loses power, {'boots again' if returns else 'for good'}")
        self._world.after(self._chance.between(*KEEPALIVE_MS), partial(self._keepalive, node, process))
        node.lose_power(self._chance.between(2_000, 60_000) if returns else None)
        return process is not None

    def _double(self) -> bool:
        """Another machine takes a node's name, as when a scheduler gives a lost node up too early."""
        doubles = self.injected[FaultKind.NODE_DOUBLED]
        if doubles >= DOUBLES_MAX:
            return False
        copy = self._chance.choice(self._nodes).double(doubles + 1)
        self._nodes.append(copy)
        copy.start_after(0)
        return True

    def _run_anew(self) -> bool:
        """Somebody ends a job by Ctrl-C on its nodes, perhaps not on all, and runs it again with another spec."""
        if self.injected[FaultKind.RUN_ANEW] >= RUNS_ANEW_MAX:
            return False
        job = self._chance.choice(self._options.jobs)
        spec = self._specs.get(job.name, job.spec)
        fewer_or_more = replace(spec, max_restarts=(spec.max_restarts + 1) % RESTARTS_BELOW)
        self._specs[job.name] = self._chance.choice((fewer_or_more, replace(spec, max_nodes=spec.max_nodes + 1)))
        self._world.tell("!", job.name, f"is run anew with {self._specs[job.name]}")
        share = self._chance.choice((0.7, 1.0, 1.0))
        for node in self._nodes:
            if node.job is job and node.process is not None and self._chance.happens(share):
                node.process.signal(signal.SIGINT)
        return True

    def _take_ports(self) -> bool:
        """For a while no port can be had on a node for the rendezvous."""
        node = self._chance.choice(self._nodes)
        node.ports.taken += 1
        self._world.tell("!", node.name, "no port is to be had")
        self._cure_after(self._chance.between(*PORTS_TAKEN_MS), node.ports.give_back)
        return True

    def _watchdog(self) -> bool:
        """A report out of turn, and now and then the end of a worker that hangs."""
        victim = self._victim()
        if victim is None:
            return False
        victim.post(WatchdogChanged(WatchdogStatus(enabled=True, last_expiry=f"at {self._world.now_ms}")))
        group = victim.keeper.group
        if group is not None and self._chance.happens(TIMER_EXPIRES_CHANCE):
            victim.post(TimerExpired(group.round, 0, "step", signal.SIGKILL))
        return True
