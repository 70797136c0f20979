from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint.commands.words import age, enum_word, exit_in_words, last_part, lines_of, one_line, printable
from rallypoint.v1 import types_pb2

NOW = Timestamp(seconds=1_800_000_000)


def test_an_enum_loses_its_prefix_and_an_unknown_one_its_name() -> None:
    assert enum_word(types_pb2.JobState, types_pb2.JOB_STATE_RUNNING, "JOB_STATE_") == "RUNNING"
    assert enum_word(types_pb2.JobState, 0, "JOB_STATE_") == ""
    assert enum_word(types_pb2.JobState, 77, "JOB_STATE_") == "77"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0s"),
        (3, "3.0s"),
        (10, "10s"),
        (59, "59s"),
        (60, "1m0s"),
        (725, "12m5s"),
        (3_600, "1h0m"),
        (86_400 * 5 + 7_300, "5d2h"),
        (-5, "0.0s"),
    ],
)
def test_age(seconds: int, told: str) -> None:
    assert age(Timestamp(seconds=NOW.seconds - seconds), NOW) == told


def test_age_knows_tenths_and_what_is_not_set() -> None:
    assert age(Timestamp(seconds=NOW.seconds - 1, nanos=600_000_000), NOW) == "0.4s"
    assert age(Timestamp(), NOW) == ""


@pytest.mark.parametrize(("code", "told"), [(3, "exited with 3"), (-9, "exited with -9 (SIGKILL)")])
def test_exit_in_words(code: int, told: str) -> None:
    assert exit_in_words(code) == told


def test_last_part() -> None:
    assert last_part("jobs/train/nodes/node-a") == "node-a"


def test_a_terminal_obeys_nothing_of_what_others_said() -> None:
    assert printable("a\x1b[2Jb\u202ec\n\u00e4") == "a\\x1b[2Jb\\u202ec\\n\u00e4"
    assert lines_of("a\n\tb\x1b\n") == ["a", "        b\\x1b"]
    assert one_line(" a\n b\t\x07 ") == "a b \\x07"
