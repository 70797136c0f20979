"""A mutant: a small deliberate bug, kept as a patch against cores or journal, and the suites that have to catch it.

A patch begins with what is wrong with it (``C4: ...``) and which suite catches it soonest (``Quickest: tables``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("common", "coordinator", "node_agent", "tests")
TIMEOUT_S = 300
"""So long a suite may take, and no longer:"""
TEST_TIMEOUT_S = 30
"""so long a test. A mutant that loops for ever is caught by the one that it hangs."""

_PYTEST = (sys.executable, *f"-m pytest -q -x --no-header -p no:cacheprovider --timeout={TEST_TIMEOUT_S}".split())
SUITES: Mapping[str, tuple[str, ...]] = {
    "tables": (*_PYTEST, "tests/unit/rallypoint_coordinator/core", "tests/unit/rallypoint_agent/core"),
    "shells": (*_PYTEST, "tests/unit/rallypoint_coordinator/store", "tests/unit/rallypoint_coordinator/server"),
    "transcripts": (*_PYTEST, "tests/transcripts"),
    "property": (*_PYTEST, "tests/property"),
    "simulation": (sys.executable, "-m", "simulation.run", "--seeds", "100"),
}


@dataclass(frozen=True)
class Mutant:
    name: str
    patch: Path
    about: str
    quickest: str


def mutants() -> list[Mutant]:
    return [_read(patch) for patch in sorted(Path(__file__).parent.glob("*.patch"))]


def _read(patch: Path) -> Mutant:
    about, quickest, *_ = patch.read_text().splitlines()
    return Mutant(patch.stem, patch, about, quickest.removeprefix("Quickest: "))


def copy_tree(to: Path) -> Path:
    """The sources and the tests, where they can be broken."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def applies(mutant: Mutant, tree: Path) -> str:
    """Why the patch does not apply; "" if it does."""
    return _git_apply(tree, mutant.patch, "--check")


def apply(mutant: Mutant, tree: Path) -> None:
    refusal = _git_apply(tree, mutant.patch)
    if refusal:
        raise ValueError(f"{mutant.name} does not apply: {refusal}")


def _git_apply(tree: Path, patch: Path, *options: str) -> str:
    """The tree is no repository, and must not be taken for a part of one."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    command = ["git", "apply", *options, str(patch)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def verdict(suite: str, tree: Path) -> str:
    """``passes``, ``fails``, or what went wrong with the suite itself."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(tree / folder) for folder in FOLDERS),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PROPERTY_PROFILE": "unshrunk",
    }
    try:
        done = subprocess.run(
            SUITES[suite], cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "fails"
    told = _told(suite, done.stdout)
    return {(0, True): "passes", (1, True): "fails"}.get((done.returncode, told), f"{done.stdout}{done.stderr}")


def _told(suite: str, output: str) -> bool:
    """Whether the suite came to a result, rather than to grief: a mutant that cannot be imported is none."""
    return " violations" in output if suite == "simulation" else " error" not in output.splitlines()[-1]
