"""Error files: what a worker leaves of its end, as bytes or by ``record`` of whatever exception.

The first byte of an input says which. The failure that is made of it fits the wire, is taken by the coordinator, and
the reports that people and torch's tools get can be made of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

from fuzz.folder import folder
from fuzz.mutate import WORDS, mutated
from fuzz.target import Target, demand
from rallypoint import wire
from rallypoint.limits import FAILURE_MESSAGE_BYTES, TRACEBACK_BYTES
from rallypoint.model import JobState, Observed, Outcome, WorkerFailure
from rallypoint.v1 import agent_service_pb2
from rallypoint.validation import validate_observed
from rallypoint.worker import write_error_file
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.errors import Ending, failure_of
from rallypoint_agent.final_report import final_report, leave_error_file

_ENDING = Ending(node="a", local_rank=0, rank=3, pid=7, exit_code=1, time_ms=1_700_000_000_000, boot_ms=5)
_RECORDED = 1


def check(data: bytes) -> None:
    path = folder() / "error.json"
    path.unlink(missing_ok=True)
    if data and data[0] % 2 == _RECORDED:
        os.environ["TORCHELASTIC_ERROR_FILE"] = str(path)
        try:
            write_error_file(ValueError(data[1:].decode(errors="surrogateescape")))
        finally:
            del os.environ["TORCHELASTIC_ERROR_FILE"]
        demand(path.exists(), "record left no file")
    else:
        path.write_bytes(data[1:])
    failure = failure_of(_ENDING, str(path))
    demand(len(failure.message.encode()) <= FAILURE_MESSAGE_BYTES, "the message is too long")
    demand(len(failure.traceback.encode()) <= TRACEBACK_BYTES, "the traceback is too long")
    demand(bool(failure.message), "the failure says nothing")
    _tell(failure)
    _report(failure, folder() / "reply.json")


def _tell(failure: WorkerFailure) -> None:
    message = wire.observed_to_proto(Observed(failures=(failure,)))
    read = agent_service_pb2.Observed.FromString(message.SerializeToString())
    refusal = validate_observed(read)
    demand(refusal is None, f"the coordinator refuses it: {refusal}")
    (found,) = wire.observed_from_proto(read).failures
    if found != failure:
        raise AssertionError(f"the coordinator reads {found}")


def _report(failure: WorkerFailure, path: Path) -> None:
    outcome = Outcome(state=JobState.FAILED, reason="R", message="m", culprit=failure)
    finish = Finish(kind=FinishKind.DECIDED, message="it failed", outcome=outcome)
    final_report(finish, [failure, failure]).encode()
    leave_error_file(str(path), finish, [failure])
    again = failure_of(_ENDING, str(path))
    demand(again.message == failure.message, f"what is left for torch's tools says {again.message!r}")


def _torch(message: object, extra: object) -> bytes:
    return json.dumps({"message": {"message": message, "extraInfo": extra}}).encode()


_SEEDS = [
    _torch("ValueError: no", {"py_callstack": "Traceback\n  File", "timestamp": "1"}),
    _torch("é\ud800\0", {"py_callstack": "\udfff" * 9}),
    _torch("x" * 5000, {"py_callstack": "y" * 70_000}),
    b'{"message": "plain"}',
    json.dumps({"message": "utf-16"}).encode("utf-16"),
    b"[]",
    b'{"message": {"message": "a", "extraInfo": []}}',
    b"ValueError: no",
]
_WORDS = (
    *WORDS,
    b'"message"',
    b'"extraInfo"',
    b'"py_callstack"',
    b"null",
    b"[]",
    b"{}",
    b"1e999",
    b"\\udfff",
    b"\\u0000",
)


def generate(rng: Random) -> bytes:
    return bytes([rng.randrange(2)]) + mutated(rng, _SEEDS, _WORDS)


TARGET = Target(check=check, generate=generate)
