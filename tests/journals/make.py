"""Makes a journal of the present format, to be replayed by every later release.

    PYTHONPATH=tests .venv/bin/python tests/journals/make.py NAME STORY

STORY is in STORIES. Writes ``NAME.jsonl`` (the records: ``data`` is what is stored, ``says`` the same for people),
``NAME.db`` (the same records as the coordinator keeps them: a snapshot, the last few records before it, and those after
it) and ``NAME.json`` (the state that both lead to). What a release wrote is never written again; when a format changes,
a new name is added.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from rallypoint.model import AgentPhase, Capability, JobSpec, Observed, Version, WorkerStatus
from rallypoint.v1 import journal_pb2
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.events import OperatorAsked, Request
from rallypoint_coordinator.core.records import Entry
from rallypoint_coordinator.store.codec import encode
from rallypoint_coordinator.store.journal import Snapshot
from rallypoint_coordinator.store.snapshot_codec import encode_snapshot, snapshot_to_proto
from rallypoint_coordinator.store.sqlite import SqliteJournal
from support.coordinator_script import JOB, Agent, Script, replayed

FOLDER = Path(__file__).parent
SPEC = JobSpec(min_nodes=2, max_nodes=3, max_restarts=1, last_call_timeout_ms=1_000)
KEEP_RECORDS = 5


def story() -> Script:
    """Five lives of two jobs, in which every kind of record and every reason occurs."""
    script = Script()
    script.agent("early", SPEC).attach(job="forgotten")
    script.advance(700_000)  # join timeout, and its lease runs out
    script.keep(script.cluster.retain(Retention(lives_max=0), script.stamp))
    a, b, c = (
        script.agent(node, SPEC, role=f"role-{node}", local_world_size=2, labels={"rack": node}) for node in "abc"
    )
    first_life(script, a, b, c)
    second_life(script)
    third_life(script, a, b)
    fourth_life(script)
    return script


def recovery_story() -> Script:
    """Three lives that come back from what their agents hold; then an old backup is restored, and it happens again."""
    script = Script()
    agents = {node: script.agent(node, SPEC, local_world_size=2) for node in "abcd"}
    a, b, c, d = agents.values()
    for agent in (a, b, c):
        agent.attach()
    for agent in (a, b, c):
        agent.run()
    b.fail()
    a.clear()
    c.clear()
    for agent in (a, b, c):
        agent.run()
    d.attach()
    script.lose()
    script.agent("e", SPEC).attach(job=JOB)
    comes_back_whole(script, a, b, c, d)
    comes_back_in_part(script, a, b)
    stands_by_alone(script)
    return script


def comes_back_whole(script: Script, a: Agent, b: Agent, c: Agent, d: Agent) -> None:
    """It takes the place of a life that a fresh agent had begun."""
    for agent in (c, d, a):
        agent.attach()
    script.restart()
    for agent in (c, d, a, b):
        agent.attach()
    a.report(AgentPhase.SUCCEEDED)


def comes_back_in_part(script: Script, a: Agent, b: Agent) -> None:
    """The records are those of another round than the one that runs, and c does not come back."""
    script.restart()
    a.attach(highest_version=Version(script.cluster.epoch + 2, 900))
    b.attach()
    for _ in range(7):
        script.advance(5_000)
        a.heartbeat()
        b.heartbeat()


def stands_by_alone(script: Script) -> None:
    """Nobody of this job holds a round."""
    seen = Version(script.cluster.epoch, 2_000)
    lone = script.agent("lone", SPEC)
    lone.attach(job="lone", job_uid="lost", cluster_id="lost-cluster", highest_version=seen)
    script.advance(32_000)


def revoked_story() -> Script:
    """Of three nodes that ran a round, one does not stop its workers in time and another never starts them again."""
    script = Script()
    a, b, c = script.running("abc", SPEC)
    b.fail()
    a.clear()
    beat(script, (a, b, c), 60_000)
    b.clear()
    beat(script, (a, b), 60_000)
    a.run()
    beat(script, (a, b), SPEC.start_timeout_ms)
    a.clear()
    b.attach(fresh=True, observed=Observed())
    return script


def revoked_lives_on_story() -> Script:
    """A recovery forgives a revocation. In another job two nodes did not stop in time, and the lease of one is over."""
    script = Script()
    d, e = (script.agent(node, SPEC) for node in "de")
    for agent in (d, e):
        agent.attach(job="forgiven")
    script.advance(1_000)
    for agent in (d, e):
        agent.run()
    d.report(AgentPhase.FAILED, offer=d.next_offer())
    beat(script, (d, e), 55_000)
    d.attach(highest_version=Version(script.cluster.epoch + 2, 900), job="forgiven")
    a, b, c = script.running("abc", SPEC)
    b.fail()
    beat(script, (a, b, c), 20_000)
    beat(script, (b, c), 35_000)
    return script


def offered_before_story() -> Script:
    """An agent that attaches for the third time comes to a life in which it never was: its port may have been used."""
    script = Script()
    b = script.agent("b", SPEC)
    b.attach()
    a = script.agent("a", SPEC)
    a.attach_seq = 2
    a.attach()
    a.clear()
    script.advance(1_000)
    b.run()
    b.leave()
    return script


def drained_story() -> Script:
    """An operator drains a node, and says why."""
    script = Script()
    a, _, c = script.running("abc", SPEC)
    ask(script, Request.DRAIN, node="b")
    a.clear()
    c.clear()
    return script


def changed_story() -> Script:
    """An operator changes a job and holds it three times: until it is released, until it is over, and for good."""
    script = Script()
    a, b, c = script.running("abc", SPEC)
    script.update(max_nodes=2, max_restarts=4, labels={"team": "vision", "tier": "1"})
    script.hold(60_000)
    b.fail()
    a.clear()
    c.clear()
    ask(script, Request.RELEASE)
    script.update(labels={"team": "speech"}, min_nodes=1)
    script.hold(20_000)
    beat(script, (a, b, c), 25_000)
    script.hold(3_600_000)
    script.hold(7_200_000, reason="")
    script.update(max_nodes=5)
    script.restart()
    a.attach()
    return script


def first_life(script: Script, a: Agent, b: Agent, c: Agent) -> None:
    """One restart, then a node less, then success."""
    a.clock_ms, b.clock_ms = 7_200_000, 3_600_000
    for agent in (a, b, c):
        agent.attach()
    for agent in (a, b, c):
        agent.run()
    b.fail(
        message="ValueError: bad sample",
        traceback="Traceback (most recent call last): ...",
        fail_time_ms=1_700_000_000_000,
        fail_clock_ms=b.shown(-50),
    )
    a.fail(exit_code=1, message="KeyError: no", traceback="Traceback", fail_clock_ms=a.shown(-50))
    c.fail(exit_code=-6)
    for agent in (a, b, c):
        agent.run()
    c.obituary()
    for agent in (a, b):
        agent.clear()
    for agent in (a, b):
        agent.run()
        agent.report(AgentPhase.SUCCEEDED)
    script.restart()
    for agent in (a, b):
        agent.attach()
        agent.leave()


def second_life(script: Script) -> None:
    """What operators ask for: a restart, a node less, the end."""
    a, b, c = script.running("xyz", SPEC)
    ask(script, Request.RESTART)
    for agent in (a, b, c):
        agent.clear()
    ask(script, Request.DRAIN, node="z")
    c.leave()
    for agent in (a, b):
        agent.clear()
    ask(script, Request.CANCEL)
    for agent in (a, b):
        agent.clear()
        agent.leave()


def ask(script: Script, request: Request, node: str = "") -> None:
    script.feed(OperatorAsked(call=1, job=JOB, request=request, by="operator", reason="maintenance", node=node))


def third_life(script: Script, a: Agent, b: Agent) -> None:
    """A node joins, and leaves again; at the end of the journal a round is being ended."""
    for agent in (a, b):
        agent.welcome = None
        agent.attach(fresh=True)
    script.advance(1_000)
    a.run()
    b.run()
    d = script.agent("d", SPEC, node_rank=0)
    d.attach()
    for agent in (a, b):
        agent.clear()
    for agent in (a, b, d):
        agent.run()
    d.leave()
    for agent in (a, b):
        agent.clear()
    for agent in (a, b):
        agent.run()
    b.fail(exit_code=-9)


def fourth_life(script: Script) -> None:
    """Another job: workers that do not start; a node that is expelled and readmitted, one that is expelled and lost."""
    a, b, c = (script.agent(node, SPEC) for node in ("p", "q", "r"))
    c.capabilities = frozenset({Capability.SELF_FENCES})
    for agent in (a, b, c):
        agent.attach(job="stuck")
    a.run()
    b.report(AgentPhase.RUNNING, workers=(WorkerStatus(local_rank=0, rank=0),))
    c.run()
    beat(script, (a, b, c), SPEC.start_timeout_ms)
    b.report(AgentPhase.STOPPING, unkillable_pids=(4711,))
    a.report(AgentPhase.STOPPING, unkillable_pids=(11, 12))
    c.clear()
    beat(script, (a, c), 50_000)
    a.clear()
    c.report(AgentPhase.STOPPING, unkillable_pids=(13,))
    beat(script, (a,), 50_000)


def beat(script: Script, agents: Sequence[Agent], for_ms: int) -> None:
    """Time passes, and these agents are heard."""
    for _ in range(0, for_ms, SPEC.heartbeat_interval_ms):
        script.advance(SPEC.heartbeat_interval_ms)
        for agent in agents:
            agent.heartbeat()


def changes_story() -> Script:
    """Rounds end for several causes, by clocks that are known and by none; the last end is not followed by a round."""
    script = Script()
    a, b = (script.agent(node, SPEC) for node in "ab")
    for agent in (a, b):
        agent.clock_ms, agent.lag_ms = 90_000, 7
        agent.attach()
    script.advance(SPEC.last_call_timeout_ms)
    for agent in (a, b):
        agent.run()
    script.advance(2_000)
    b.fail(exit_code=-9, fail_clock_ms=b.shown(-40))
    script.advance(1_500)
    a.clear()
    for agent in (a, b):
        agent.run()
    script.waited_ms = 30
    script.ask(Request.RESTART)
    script.advance(700)
    for agent in (a, b):
        agent.clear()
    for agent in (a, b):
        agent.run()
    b.obituary()
    script.advance(900)
    a.clear()
    return script


STORIES = {
    "every-record": story,
    "recovery": recovery_story,
    "revoked": revoked_story,
    "drained": drained_story,
    "revoked-lives-on": revoked_lives_on_story,
    "offered-before": offered_before_story,
    "round-changes": changes_story,
    "changed-and-held": changed_story,
}


def write(name: str, tell: Callable[[], Script]) -> None:
    targets = [FOLDER / f"{name}.{suffix}" for suffix in ("jsonl", "db", "json")]
    if any(target.exists() for target in targets):
        sys.exit(f"{name} is there already, and is never made again: choose another name")
    journal = tell().journal
    text, database, state = targets
    text.write_text("".join(f"{json.dumps(line)}\n" for line in lines(journal)))
    asyncio.run(write_database(database, journal))
    says = MessageToDict(snapshot_to_proto(replayed(journal).snapshot()), preserving_proto_field_name=True)
    state.write_text(json.dumps(says, indent=1, sort_keys=True) + "\n")


def lines(journal: list[Entry]) -> list[dict[str, object]]:
    stored = [encode(entry) for entry in journal]
    return [
        {
            "revision": revision,
            "data": base64.b64encode(data).decode(),
            "says": MessageToDict(journal_pb2.JournalRecord.FromString(data), preserving_proto_field_name=True),
        }
        for revision, data in enumerate(stored, 1)
    ]


async def write_database(path: Path, journal: list[Entry]) -> None:
    records, cut = [encode(entry) for entry in journal], len(journal) * 2 // 3
    database = SqliteJournal(path)
    await database.append(0, records[:cut])
    await database.write_snapshot(Snapshot(cut, encode_snapshot(replayed(journal[:cut]).snapshot())), KEEP_RECORDS)
    await database.append(cut, records[cut:])
    await database.close()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in STORIES:
        sys.exit(__doc__)
    write(sys.argv[1], STORIES[sys.argv[2]])
