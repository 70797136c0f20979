"""What comes over the wire, from a file or from a worker is data: no module of ours can make more of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = [path for part in ("common", "coordinator", "node_agent") for path in sorted((ROOT / part).rglob("*.py"))]
EVALUATORS = {"eval", "exec", "pickle", "marshal", "shelve", "dill", "cloudpickle"}

ITS_OWN_WORKERS = {"common/rallypoint/worker/function.py", "node_agent/rallypoint_agent/function_entrypoint.py"}
"""Arguments and return values of functions, in files that only the user of both sides can write."""


def evaluators_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Name):
            names = [node.id]
        yield from (name for name in names if name.partition(".")[0] in EVALUATORS)


def test_only_functions_as_workers_are_pickled() -> None:
    found = {str(path.relative_to(ROOT)) for path in SOURCES if any(evaluators_in(ast.parse(path.read_text())))}
    assert found == ITS_OWN_WORKERS


@pytest.mark.parametrize("text", ["import pickle", "from pickle import loads", "eval('1')", "import a, marshal as m"])
def test_what_is_looked_for_is_found(text: str) -> None:
    assert list(evaluators_in(ast.parse(text)))
