"""Values that more than one part must agree on. Imports nothing, so that it costs nobody anything."""

from __future__ import annotations

PORT_DEFAULT = 29_400
"""Where a coordinator listens unless told otherwise."""

TOKEN_PREFIX = "rpt_"
"""With which a token begins, so that one is known where it does not belong."""

INT32_MAX = 2**31 - 1
DAY_MS = 24 * 3_600_000
HOLD_MS_DEFAULT = DAY_MS
HOLD_MS_MAX = 30 * DAY_MS
"""Of a job that is held: after that it releases itself."""

DURATION_MS_MAX = 365 * DAY_MS
"""Of every duration of a JobSpec: longer than any job, and an instant plus one stays an instant."""

JOB_NAME_LENGTH = 128
JOB_NAME_PATTERN = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{JOB_NAME_LENGTH - 1}}}"
"""What the whole name matches."""

NODE_NAME_LENGTH = 253
LABELS_MAX = 32
"""Of one node, and of one job."""
LABEL_KEY_BYTES = 63
LABEL_VALUE_BYTES = 256

LOCAL_WORLD_SIZE_MAX = 4096
FAILURES_MAX = 16
"""So many failures of a round an agent reports: the earliest."""

FAILURE_MESSAGE_BYTES = 4 * 1024
TRACEBACK_BYTES = 64 * 1024
LEAVE_MESSAGE_BYTES = 1024
"""Of a Goodbye and of an obituary."""
