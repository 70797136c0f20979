"""A phase as a line of a table, and what is said below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulated_fleet.holdings import Holdings
from simulated_fleet.meter import Account, Counts, Phase

COLUMNS = (
    "phase",
    "events",
    "up",
    "bytes",
    "down",
    "bytes",
    "records",
    "bytes",
    "appends",
    "largest",
    "core us",
    "door us",
    "longest ms",
)
WIDTHS = (22, 9, 6, 6, 6, 6, 9, 12, 8, 10, 8, 8, 11)

LEGEND = """up, down: messages to and from the coordinator, and their bytes, for each agent; heartbeats, and reports
that take the place of one, are apart.
records, appends: of the journal, and the bytes of the largest append. core us, door us: CPU microseconds of
the core for each event, and of reading and checking each message. longest ms: of one step of the core, during
which nothing else happens."""


def heading() -> str:
    return _line(COLUMNS)


def line(phase: Phase, agents: int) -> str:
    news = phase.news
    return _line(
        (
            phase.name,
            f"{news.events.total():,}",
            f"{news.up.number.total() / agents:.2f}",
            f"{news.up.bytes.total() / agents:.0f}",
            f"{news.down.number.total() / agents:.2f}",
            f"{news.down.bytes.total() / agents:.0f}",
            f"{phase.records.number.total():,}",
            f"{phase.records.bytes.total():,}",
            f"{phase.batches:,}",
            f"{phase.largest_batch[0]:,}",
            f"{core_us(news):.1f}",
            f"{1e6 * _each(phase.door.seconds_for(news.up.number), news.up.number.total()):.1f}",
            f"{1e3 * news.longest_step[0]:.1f}",
        )
    )


def kinds(phase: Phase, agents: int) -> str:
    """Each kind of message and record of the phase that matters: one for a tenth of the agents at least."""
    news = phase.news
    up, down, records = (_often(counts, agents) for counts in (news.up.number, news.down.number, phase.records.number))
    return f"    up: {up}; down: {down}; records: {records}; largest record: {phase.records.largest[0]:,} B"


def renewals(phase: Phase, agents: int) -> str:
    """The heartbeats of a quiet phase."""
    beats, minutes = phase.renewal, phase.virtual_ms / 60_000
    each = agents * minutes
    door_us = 1e6 * phase.door.seconds_each("Heartbeat")
    return (
        f"heartbeats: {beats.up.number.total() / each:.2f} a minute and agent, {_size_each(beats.up):.0f} B each,"
        f" answered by {beats.down.number.total() / each:.2f} of {_size_each(beats.down):.0f} B;"
        f" core {core_us(beats):.1f} us, door {door_us:.1f} us each; steps for time alone:"
        f" {phase.news.events['TimeAdvanced'] / each:.2f} a minute and agent"
    )


def held(holdings: Holdings, agents: int) -> str:
    h = holdings
    return (
        f"held: {h.core_bytes / agents:,.0f} B of core state an agent; a snapshot of {h.snapshot_bytes:,} B, copied in"
        f" {1e3 * h.copy_s:.1f} ms, encoded and checked in {1e3 * h.snapshot_s:.0f} ms; GetJob {h.job_bytes:,} B in"
        f" {1e3 * h.job_s:.2f} ms; a page of 1,000 nodes {h.page_bytes:,} B in {1e3 * h.page_s:.1f} ms"
    )


def core_us(account: Account) -> float:
    """Of the core, for each event."""
    return 1e6 * _each(account.core_s, account.events.total())


def _often(number: Mapping[str, int], agents: int) -> str:
    often = (f"{kind} {count / agents:.2f}" for kind, count in number.items() if count >= agents / 10)
    return ", ".join(often) or "none"


def _size_each(counts: Counts) -> float:
    return _each(counts.bytes.total(), counts.number.total())


def _each(total: float, count: int) -> float:
    return total / count if count else 0.0


def _line(cells: Sequence[str]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))
    return " ".join((first.strip().ljust(WIDTHS[0]), *others))
