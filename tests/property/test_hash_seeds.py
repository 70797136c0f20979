"""C7: the same events lead to the same records, and the same records to the same facts, whatever PYTHONHASHSEED is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from property import story
from support.coordinator_script import replayed


def in_a_child(hash_seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "from property.story import main; main()"]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture(scope="module")
def here() -> list[str]:
    return list(story.lines())


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_story_is_the_same_whatever_the_hash_seed(hash_seed: str, here: list[str]) -> None:
    there = in_a_child(hash_seed)
    first = next((at for at, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), None)
    assert first is None, f"line {first}: {here[first]} became {there[first]}"
    assert len(here) == len(there)


def test_what_was_lived_is_what_replays(here: list[str]) -> None:
    assert here[-1] == here[-2]


def test_the_story_is_worth_telling() -> None:
    """Enough nodes that the order of a set would show, and records of nearly every kind."""
    script = story.told()
    found = Counter(type(entry.record).__name__ for entry in script.journal)
    assert found["RoundFormed"] >= 4
    assert found["MemberGone"] >= 8
    assert {"RoundEnded", "NodeDrained", "RestartAsked", "NodeSucceeded", "JobDecided"} <= found.keys()
    assert replayed(script.journal).snapshot() == script.cluster.snapshot()
