"""The patches fit the sources as they are now, and a few mutants are caught; `make mutants` hunts them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutants.mutant import SUITES, Mutant, applies, apply, copy_tree, mutants, verdict

ALL = {mutant.name: mutant for mutant in mutants()}
INVARIANTS = {*(f"C{number}" for number in range(1, 11)), *(f"A{number}" for number in range(1, 6))}
SAMPLE = ("a03-starts-without-a-lease", "c04-stale-ready-counts", "c10-a-port-is-used-again")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.mark.parametrize("mutant", ALL.values(), ids=ALL)
def test_the_patch_fits(mutant: Mutant, tree: Path) -> None:
    refusal = applies(mutant, tree)
    assert not refusal, f"{mutant.patch} no longer fits the sources: make the same bug anew\n{refusal}"


def test_every_invariant_has_a_mutant() -> None:
    assert {mutant.about.partition(":")[0] for mutant in ALL.values()} == INVARIANTS


@pytest.mark.parametrize("mutant", ALL.values(), ids=ALL)
def test_a_patch_says_what_is_wrong_and_who_catches_it(mutant: Mutant) -> None:
    invariant, _, what = mutant.about.partition(": ")
    assert mutant.name.startswith(f"{invariant[0].lower()}{int(invariant[1:]):02}-")
    assert what.endswith(".")
    assert mutant.quickest in SUITES


def test_nothing_is_caught_where_nothing_is_wrong(tree: Path) -> None:
    assert verdict("transcripts", tree) == "passes"


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mutant_is_caught(name: str, tmp_path: Path) -> None:
    mutant = ALL[name]
    broken = copy_tree(tmp_path / "tree")
    apply(mutant, broken)
    assert verdict(mutant.quickest, broken) == "fails", mutant.about
