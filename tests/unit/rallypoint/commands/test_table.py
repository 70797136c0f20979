from __future__ import annotations

from rallypoint.commands.output import in_colour
from rallypoint.commands.table import table


def test_columns() -> None:
    rows = [("a", "RUNNING", "all is well"), ("longer", "", ""), ("b", "x\x1b", "one\ntwo")]
    assert table(("NAME", "STATE", "WHY"), rows).splitlines() == [
        "NAME    STATE    WHY",
        "a       RUNNING  all is well",
        "longer  -",
        "b       x\\x1b    one two",
    ]


def test_without_rows_there_is_the_header() -> None:
    assert table(("NAME", "WHY"), []) == "NAME  WHY"


def test_colours_do_not_move_columns() -> None:
    lines = table(("STATE", "WHY"), [("LOST", "a"), ("STOPPING", "b")], in_colour).splitlines()
    assert lines == ["STATE     WHY", "\x1b[31mLOST\x1b[0m      a", "\x1b[33mSTOPPING\x1b[0m  b"]
