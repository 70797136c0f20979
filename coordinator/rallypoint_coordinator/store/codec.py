"""A record as the bytes of a JournalRecord, and back. Lossless: replay must give the very state that was decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from rallypoint.v1 import journal_pb2 as pb
from rallypoint.wire.scalars import instant_from_proto, instant_to_proto
from rallypoint_coordinator.core.records import Entry, Record
from rallypoint_coordinator.store.codec_jobs import JOBS
from rallypoint_coordinator.store.codec_members import MEMBERS
from rallypoint_coordinator.store.codec_requests import REQUESTS
from rallypoint_coordinator.store.codec_rounds import ROUNDS
from rallypoint_coordinator.store.codec_values import Codec, UnknownRecordKind, UnreadableRecord


def encode(entry: Entry) -> bytes:
    """The entry as it is stored. Equal entries give equal bytes."""
    codec = _BY_TYPE[type(entry.record)]
    kind: dict[str, Any] = {codec.field: codec.write(entry.record)}
    message = pb.JournalRecord(
        job=entry.job,
        job_uid=entry.job_uid,
        decide_time=instant_to_proto(entry.wall_ms),
        **kind,
    )
    return message.SerializeToString(deterministic=True)


def decode(data: bytes) -> Entry:
    """The entry that was stored. Raises UnreadableRecord."""
    try:
        message = pb.JournalRecord.FromString(data)
    except DecodeError as error:
        raise UnreadableRecord(f"not a record: {error}") from error
    field = message.WhichOneof("record")
    if field is None:
        raise UnknownRecordKind("a record of a kind that this release does not know; was a later release run here?")
    return Entry(
        job=message.job,
        job_uid=message.job_uid,
        wall_ms=instant_from_proto(message.decide_time),
        record=_BY_FIELD[field].read(getattr(message, field)),
    )


_CODECS: tuple[Codec, ...] = (*JOBS, *MEMBERS, *ROUNDS, *REQUESTS)
_BY_TYPE: Mapping[type[Record], Codec] = {codec.type: codec for codec in _CODECS}
_BY_FIELD: Mapping[str, Codec] = {codec.field: codec for codec in _CODECS}
