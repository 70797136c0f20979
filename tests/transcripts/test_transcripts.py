"""Golden transcripts: each story is played again, and must be told as it is written.

REWRITE=1 writes down what is told now. Read the diff before you commit it: it is the change in behaviour.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from transcripts.agent_stage import AgentStage
from transcripts.coordinator_stage import CoordinatorStage
from transcripts.language import Stage, UnknownCommand, parse, played

FOLDER = Path(__file__).parent
STORIES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*.txt"))


def stage_for(name: str) -> Stage:
    return CoordinatorStage() if name.startswith("coordinator/") else AgentStage()


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str) -> None:
    path = FOLDER / name
    written = path.read_text()
    told = played(written, stage_for(name))
    if told != written and os.environ.get("REWRITE"):
        path.write_text(told)
    elif told != written:
        diff = difflib.unified_diff(written.splitlines(), told.splitlines(), "written", "told now", lineterm="", n=2)
        pytest.fail("\n".join([name, *diff, f"Is that meant? Then: REWRITE=1 pytest {path}"]), pytrace=False)


def test_the_stories_are_found() -> None:
    assert len([name for name in STORIES if name.startswith("coordinator/")]) >= 15
    assert len([name for name in STORIES if name.startswith("agent/")]) >= 5


@pytest.mark.parametrize("name", STORIES)
def test_a_story_says_what_it_is_about(name: str) -> None:
    assert (FOLDER / name).read_text().startswith("# ")


@pytest.mark.parametrize("line", ["a sings", "advance 5", "sing"])
def test_what_is_no_command_is_refused(line: str) -> None:
    with pytest.raises(UnknownCommand):
        played(line, CoordinatorStage())


def test_words_and_options() -> None:
    command = parse('b fail 1 "ValueError: x = 1" seen=1.4')
    assert command.words == ["b", "fail", "1", "ValueError: x = 1"]
    assert command.options == {"seen": "1.4"}
