from __future__ import annotations

import pytest

from rallypoint.texts import counted, cut, signal_name


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
