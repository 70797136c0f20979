"""docs/torchrun.md says what torchrun has, and what happens here."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from rallypoint_agent.options import parse

PAGE = Path(__file__).parents[3] / "docs" / "torchrun.md"


@dataclass(frozen=True)
class Row:
    flag: str
    variable: str
    here: str
    example: str

    @property
    def line(self) -> list[str]:
        return [f"{self.flag}={self.example}" if self.example else self.flag, __file__]


def rows() -> list[Row]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `--")]
    return [Row(*(cell.strip(" `") for cell in line.split("|")[1:5])) for line in lines]


def test_every_row_is_of_a_known_kind() -> None:
    assert {row.here for row in rows()} == {"works", "no effect"}


def test_the_table_has_torchruns_flags_and_variables() -> None:
    run = pytest.importorskip("torch.distributed.run")
    actions = [action for action in run.get_args_parser()._actions if action.option_strings and action.dest != "help"]
    assert {row.flag: row.variable for row in rows()} == {_long(action): _variable(action) for action in actions}


def _long(action: argparse.Action) -> str:
    return next(name for name in action.option_strings if name.startswith("--"))


def _variable(action: argparse.Action) -> str:
    """torch's actions that read the environment are classes of its own."""
    of_argparse = type(action).__module__ == "argparse"
    return "" if of_argparse else f"PET_{action.dest.upper()}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.flag)
def test_what_works_is_taken_as_a_flag_and_as_a_variable(row: Row) -> None:
    by_flag = parse(["--rdzv-id=j", *row.line], {})
    if row.variable:
        by_variable = parse(["--rdzv-id=j", __file__], {row.variable: row.example or "1"})
        assert row.flag == "--rdzv-id" or by_variable == by_flag
    if row.here == "no effect":
        assert by_flag == parse(["--rdzv-id=j", __file__], {})
