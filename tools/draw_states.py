"""Draws docs/states.md from the tables that the cores run on. ``--check`` fails if the page is out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from drawn_page import write_or_check

from rallypoint.model import AgentPhase, JobState
from rallypoint_agent.core.directives import ON_DIRECTIVE
from rallypoint_coordinator.core.evolve import TRANSITIONS

INTRODUCTION = """\
# State machines

Drawn from the tables in the code by `make docs`; `make check` fails when this page is out of date.
"""


def job_transitions() -> Iterator[str]:
    yield f"    [*] --> {JobState.GATHERING}: JobCreated"
    for state, row in TRANSITIONS.items():
        for record, targets in row.items():
            for target in targets:
                yield f"    {state} --> {target}: {record.__name__}"
    for state in JobState:
        if state.is_decided:
            yield f"    {state} --> [*]"


def records_that_stay() -> Iterator[str]:
    yield "| state | records that leave it as it is |"
    yield "|---|---|"
    for state, row in TRANSITIONS.items():
        stays = ", ".join(record.__name__ for record, targets in row.items() if not targets)
        yield f"| {state} | {stays} |"


def directive_table() -> Iterator[str]:
    actions = [action.__name__ for action in ON_DIRECTIVE[AgentPhase.READY]]
    yield f"| phase | {' | '.join(actions)} |"
    yield f"|---|{'---|' * len(actions)}"
    for phase, row in ON_DIRECTIVE.items():
        cells = [handler.__name__.strip("_").replace("_", " ") for handler in row.values()]
        yield f"| {phase} | {' | '.join(cells)} |"


def page() -> str:
    lines = [
        INTRODUCTION,
        "## A life of a job (coordinator)",
        "",
        "An arrow is a record; a record without a cell in a state is refused as an illegal transition.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        *job_transitions(),
        "```",
        "",
        *records_that_stay(),
        "",
        "## What an agent does with a directive",
        "",
        "By the phase of its worker group. *defer*: done once the workers are gone.",
        "",
        *directive_table(),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(write_or_check("states", page()))
