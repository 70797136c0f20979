"""Fuzzes: draws inputs from a seed, runs them, and tells what was found and how to see it again.

python -m fuzz.run --inputs 1000000 --seed 1 --jobs 2
python -m fuzz.run --target flags --inputs 20000
python -m fuzz.run --target flags --file .fuzz/findings/flags/0123456789abcdef

What has been run of this very tree is noted in .fuzz: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from fuzz.campaign import TARGETS, Finding, Slice, judge, quiet, run_slice

NOTES = Path(".fuzz")
ROOT = Path(__file__).parents[2]
SOURCES = ("common", "coordinator", "node_agent", "tests/fuzz")
SLICE_INPUTS = 2_000


class Part(NamedTuple):
    """Some inputs of a target, by their numbers."""

    target: str
    first: int
    size: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description="Fuzz what comes from outside.")
    parser.add_argument("--inputs", type=int, default=100_000, help="how many in all (default: 100000)")
    parser.add_argument("--seed", type=int, default=1, help="another one draws other inputs (default: 1)")
    parser.add_argument("--target", choices=TARGETS, help="this one alone")
    parser.add_argument("--jobs", type=int, default=1, help="so many processes (default: 1)")
    parser.add_argument("--file", type=Path, help="check this input of the target, and show what is wrong with it")
    args = parser.parse_args()
    if args.file is not None:
        return show(args.target, args.file) if args.target else parser.error("--file needs --target")
    return fuzz(parts_of(args.inputs, [args.target] if args.target else list(TARGETS)), args.seed, args.jobs)


def show(target: str, path: Path) -> int:
    with quiet():
        finding = judge(target, path.read_bytes())
    print(finding.told if finding else f"{target}: nothing is wrong with {path}")
    return 1 if finding else 0


def parts_of(inputs: int, targets: list[str]) -> list[Part]:
    """The targets' shares, in slices; in such an order that all are about as far at any time."""
    shares = sum(TARGETS[target] for target in targets)
    counts = {target: -(-inputs * TARGETS[target] // shares) for target in targets}
    found = [
        Part(target, at, min(SLICE_INPUTS, count - at))
        for target, count in counts.items()
        for at in range(0, count, SLICE_INPUTS)
    ]
    return sorted(found, key=lambda part: part.first / counts[part.target])


def fuzz(parts: list[Part], seed: int, jobs: int) -> int:
    began_s, counts, findings = time.monotonic(), Counter[str](), dict[tuple[str, str], Finding]()
    notes = Notes(NOTES / f"seed-{seed}-{tree()}.jsonl")
    left = [part for part in parts if part not in notes.done]
    for part in notes.done.intersection(parts):
        counts[part.target] += part.size
    for part, found in _run(left, seed, jobs):
        counts[part.target] += found.inputs
        for finding in found.findings:
            if findings.setdefault((finding.target, finding.where), finding) is finding:
                tell(finding)
        if not found.findings:  # what found something is run again
            notes.note(part)
    kinds = Counter(target for target, _ in findings)
    for target in sorted({part.target for part in parts}):
        print(f"{target}: {counts[target]:,} inputs, {kinds[target]} findings")
    took_s = time.monotonic() - began_s
    print(f"{counts.total():,} inputs, {len(findings)} findings; {sum(part.size for part in left):,} in {took_s:.0f} s")
    return 1 if findings else 0


def _run(parts: Iterable[Part], seed: int, jobs: int) -> Iterator[tuple[Part, Slice]]:
    if jobs == 1:
        for part in parts:
            yield part, run_slice(part.target, seed, part.first, part.size)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run_slice, part.target, seed, part.first, part.size): part for part in parts}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def tell(finding: Finding) -> None:
    """Keep the input where it can be run again, and say how."""
    path = NOTES / "findings" / finding.target / finding.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(finding.data)
    print(f"{finding.target}: {finding.where}\n{finding.told}")
    print(f"    PYTHONPATH=tests .venv/bin/python -m fuzz.run --target {finding.target} --file {path}", flush=True)


def tree() -> str:
    """Stands for the code under test: what was run on other code says nothing of it."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class Notes:
    """Which parts of a seed's inputs were run, and nothing was found in them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.done = {Part(*json.loads(line)) for line in lines}

    def note(self, part: Part) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(part) + "\n")


if __name__ == "__main__":
    sys.exit(main())
