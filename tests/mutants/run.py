"""Every mutant against the fast suites, that which catches it soonest first, until one has caught it.

PYTHONPATH=tests .venv/bin/python -m mutants.run [--only c04] [--suite property] [--all-suites]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants.mutant import SUITES, Mutant, applies, apply, copy_tree, mutants, verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants.run", description="Check that the tests catch mutants.")
    parser.add_argument("--only", default="", help="those whose name begins so (default: all)")
    parser.add_argument("--suite", action="append", choices=SUITES, help="one suite, repeatable (default: all)")
    parser.add_argument("--all-suites", action="store_true", help="go on when a suite has caught it: who else does?")
    args = parser.parse_args()
    chosen = [mutant for mutant in mutants() if mutant.name.startswith(args.only)]
    return hunt(chosen, args.suite or list(SUITES), until_caught=not args.all_suites)


def hunt(chosen: Sequence[Mutant], suites: Sequence[str], *, until_caught: bool) -> int:
    began_s = time.monotonic()
    if not _all_apply(chosen) or not _sane(suites):
        return 1
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        caught = list(pool.map(lambda mutant: _told_catchers(mutant, suites, until_caught=until_caught), chosen))
    survivors = caught.count(False)
    print(f"{len(chosen)} mutants, {survivors} survived, {time.monotonic() - began_s:.0f} s")
    return 1 if survivors or not chosen else 0


def _all_apply(chosen: Sequence[Mutant]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder))
        stale = [(mutant, why) for mutant in chosen if (why := applies(mutant, tree))]
    for mutant, why in stale:
        print(f"{mutant.name}: the patch does not apply any more: make it anew\n{why}")
    return not stale


def _sane(suites: Sequence[str]) -> bool:
    """What fails without any mutant catches nothing."""
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder))
        broken = {suite: found for suite in suites if (found := verdict(suite, tree)) != "passes"}
    for suite, found in broken.items():
        print(f"{suite} without a mutant: {found}")
    return not broken


def _told_catchers(mutant: Mutant, suites: Sequence[str], *, until_caught: bool) -> bool:
    catchers: list[str] = []
    for suite in sorted(suites, key=lambda suite: suite != mutant.quickest):
        found = _verdict_on(mutant, suite)
        if found == "fails":
            catchers.append(suite)
        elif found != "passes":
            print(f"{mutant.name}: {suite} came to no result: {found}", flush=True)
        if catchers and until_caught:
            break
    print(f"{mutant.name:<52} {', '.join(catchers) or 'SURVIVES'}", flush=True)
    return bool(catchers)


def _verdict_on(mutant: Mutant, suite: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder))
        apply(mutant, tree)
        return verdict(suite, tree)


if __name__ == "__main__":
    sys.exit(main())
