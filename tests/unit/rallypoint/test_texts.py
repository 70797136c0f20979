from __future__ import annotations

import pytest

from rallypoint.texts import counted, cut, signal_name, spans


@pytest.mark.parametrize(
    ("text", "most", "start", "end"),
    [
        ("", 3, "", ""),
        ("abc", 3, "abc", "abc"),
        ("abcd", 3, "abc", "bcd"),
        ("aéb", 2, "a", "b"),
        ("ééé", 5, "éé", "éé"),
        ("a\udc80b", 9, "a\\udc80b", "a\\udc80b"),
        ("abc", 0, "", ""),
    ],
)
def test_cut_keeps_whole_characters(text: str, most: int, start: str, end: str) -> None:
    assert cut(text, most) == start
    assert cut(text, most, keep="end") == end


def test_signals_have_names() -> None:
    assert (signal_name(9), signal_name(99)) == ("SIGKILL", "signal 99")


@pytest.mark.parametrize(("number", "said"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes")])
def test_one_is_no_plural(number: int, said: str) -> None:
    assert counted(number, "node") == said


@pytest.mark.parametrize(
    ("numbers", "said"), [([], []), ([3], ["3"]), ([5, 1, 0, 2, 2], ["0-2", "5"]), ([1, 2], ["1-2"])]
)
def test_numbers_in_a_row_are_a_span(numbers: list[int], said: list[str]) -> None:
    assert spans(numbers) == said
