"""What a run has to tell: the faults, and how long it took until what."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from chaos.scene import Timings


@dataclass
class Report:
    faults: Counter[str] = field(default_factory=Counter)
    timings: Timings = field(default_factory=lambda: defaultdict(list))
    sentences: dict[tuple[str, str], str] = field(default_factory=dict)
    """By state and reason: what GetJob said."""

    def text(self) -> str:
        parts = ("faults", self._faults()), ("seconds", self._timings()), ("what GetJob said", self._sentences())
        return "\n".join(f"\n{title}\n{body}" for title, body in parts)

    def _faults(self) -> str:
        return "\n".join(f"{count:5}  {name}" for name, count in sorted(self.faults.items()))

    def _timings(self) -> str:
        rows = [
            f"{statistics.median(seconds):8.2f} {max(seconds):8.2f} {len(seconds):6}  {what}"
            for what, seconds in sorted(self.timings.items())
        ]
        return "\n".join([f"{'median':>8} {'max':>8} {'times':>6}", *rows])

    def _sentences(self) -> str:
        said = sorted(self.sentences.items())
        return "\n".join(f"  {state.removeprefix('JOB_STATE_')} {reason}: {text}" for (state, reason), text in said)
