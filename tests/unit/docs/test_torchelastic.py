"""docs/torchelastic.md promises tests by name: they exist, and no row goes without."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "torchelastic.md").read_text()
SHARP_EDGES, NAME_BY_NAME = PAGE.split("\n## ")[1:]

Row = list[str]


def rows(text: str) -> list[Row]:
    """The cells of every row of every table in it, without the headings."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] != "shown by"]


def named_in(text: str) -> list[tuple[str, str]]:
    """The tests that it names: the file, relative to tests/, and what pytest calls the test there."""
    return re.findall(r"`([\w/]+\.py)::((?:Test\w+::)?test_\w+)`", text)


@functools.cache
def known_in(file: str) -> frozenset[str]:
    return frozenset(_names(ast.parse((ROOT / "tests" / file).read_text()).body))


def _names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _names(node.body, f"{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name


@pytest.mark.parametrize(("file", "name"), sorted(set(named_in(PAGE))))
def test_what_is_promised_exists(file: str, name: str) -> None:
    assert name in known_in(file)


def test_nothing_else_is_promised() -> None:
    """Whoever mistypes a name is not let through because it does not look like one."""
    named = [f"`{file}::{name}`" for file, name in named_in(PAGE)]
    assert PAGE.count(".py") == len(named)
    assert PAGE.count("::") == sum(name.count("::") for name in named)


def test_every_sharp_edge_has_its_row() -> None:
    assert [row[0] for row in rows(SHARP_EDGES)] == [str(number) for number in range(1, 36)]


@pytest.mark.parametrize("row", rows(SHARP_EDGES), ids=lambda row: row[0])
def test_every_sharp_edge_is_shown_or_open(row: Row) -> None:
    _, torch, ours, shown = row
    assert torch
    assert ours
    assert named_in(shown) or shown == "not yet"


@pytest.mark.parametrize("row", rows(NAME_BY_NAME), ids=lambda row: row[0][:30])
def test_every_name_is_shown_or_left_out_for_a_reason(row: Row) -> None:
    name, verdict, reason, shown = row
    assert name
    if verdict in ("left out", "not yet"):
        assert reason.endswith(".")
    else:
        assert verdict == "same" or (verdict == "differs" and reason)
        assert named_in(shown)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
