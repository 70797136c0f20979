"""Draws docs/errors.md from the table in the code. ``--check`` fails if the page is out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from drawn_page import write_or_check

from rallypoint.errors import ERROR_DOMAIN, RETRYABLE_CODES, RULES, Detail, Reason, Rule

INTRODUCTION = f"""\
# Errors

Drawn from the table in the code (`common/rallypoint/errors.py`) by `make docs`; `make check` fails when this page is
out of date. The comments of the protos say which method ends with which of these.

Every error of the coordinator's own has a `google.rpc.Status` in its trailer `grpc-status-details-bin`, and in that an
`ErrorInfo` with one of these reasons, the domain `{ERROR_DOMAIN}`, and in its metadata what varies in the message.
Decide by the reason, show the message. An error without one comes from the transport, or from something between: an
agent attaches again with backoff, whatever the code.

What comes beside the `ErrorInfo`:

- `BadRequest`: the field at fault, as a path in the request; empty if it is the request as a whole.
- `PreconditionFailure`: what does not hold. Of each violation, `type` is the reason again, `subject` the request's
  field, as a path, or the resource whose state it is (`jobs/JOB`), and `description` a sentence with all values.
- `RetryInfo`: wait so long at least, then go on with your own backoff, and not in step with others. The delay in the
  table is said unless the coordinator knows better, as it does of a journal that it will try again, or of an address
  that has failed too often. An agent attaches no sooner, but waits for it one and a half heartbeat intervals at most.

A reason that you do not know is of a later release: go by the code. Asking again, unchanged, may help after these
alone: {", ".join(sorted(RETRYABLE_CODES))}.
"""


def rows() -> Iterator[str]:
    yield "| reason | code | what the client does | details |"
    yield "|---|---|---|---|"
    for reason in Reason:
        rule = RULES[reason]
        yield f"| `{reason}` | {rule.code} | {rule.client} | {', '.join(details(rule))} |"


def details(rule: Rule) -> Iterator[str]:
    for detail in rule.details:
        yield f"{detail} ({rule.retry_after_ms} ms)" if detail is Detail.RETRY_INFO else detail


def page() -> str:
    return "\n".join([INTRODUCTION, *rows(), ""])


if __name__ == "__main__":
    sys.exit(write_or_check("errors", page()))
