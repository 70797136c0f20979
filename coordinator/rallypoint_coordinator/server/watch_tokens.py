"""Where a reader of events is, as it hands it back: after which record of which history, and in which life."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import NamedTuple

from rallypoint.errors import Reason, Refusal, RefusedError

TOKEN_BYTES_MAX = 1024


class WatchToken(NamedTuple):
    """``mark`` is that of the record at ``revision``: a history in which another record has it is another one."""

    cluster_id: str
    job_uid: str
    revision: int
    mark: int

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode()


def mark_of(record: bytes) -> int:
    """64 bits for a record: two that differ, by their instants alone, have different ones."""
    return int.from_bytes(hashlib.blake2b(record, digest_size=8).digest(), "big")


def parse_watch_token(text: str) -> WatchToken:
    """Raises RefusedError if it cannot be one of ours."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(text)) if len(text) <= TOKEN_BYTES_MAX else None
    except (ValueError, RecursionError):
        parts = None
    match parts:
        case [str(cluster_id), str(job_uid), int(revision), int(mark)]:
            return WatchToken(cluster_id, job_uid, revision, mark)
        case _:
            pass
    raise RefusedError(invalid_token("resume_token must be one that a WatchJobResponse or ListJobEvents gave"))


def invalid_token(message: str) -> Refusal:
    field = "resume_token"
    return Refusal(reason=Reason.INVALID_FIELD, message=message, field=field, metadata={"field": field})


def expired(why: str) -> Refusal:
    """What follows the token cannot all be told."""
    return Refusal(reason=Reason.WATCH_EXPIRED, message=f"{why}: watch again without a resume_token")
