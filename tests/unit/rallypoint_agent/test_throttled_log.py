from __future__ import annotations

import pytest

from rallypoint_agent.throttled_log import INTERVAL_S, ThrottledLog


class Bench:
    def __init__(self, most: int) -> None:
        self.now_s = 100.0
        self.lines: list[str] = []
        self.log = ThrottledLog(self.lines.append, "odd things", most=most, clock=lambda: self.now_s)

    def tell(self, *texts: str) -> None:
        for text in texts:
            self.log.tell(text)


@pytest.mark.parametrize("most", [1, 3])
def test_a_flood_is_so_many_lines_and_their_number(most: int) -> None:
    bench = Bench(most)
    bench.tell(*map(str, range(1000)))
    assert bench.lines == [str(number) for number in range(most)]
    bench.now_s += INTERVAL_S
    bench.tell("a", *"b" * (most - 1), "c")
    assert bench.lines[most] == f"a ({1000 - most} more since the last such line)"
    assert bench.lines[most + 1 :] == ["b"] * (most - 1), "a new interval has room for as many"


def test_what_comes_now_and_then_is_told_as_it_is() -> None:
    bench = Bench(1)
    for text in "abc":
        bench.tell(text)
        bench.now_s += INTERVAL_S
    assert bench.lines == ["a", "b", "c"]


def test_what_was_kept_back_is_told_at_the_end_and_once() -> None:
    bench = Bench(1)
    bench.log.settle()
    bench.tell("a", "b", "c")
    bench.log.settle()
    bench.log.settle()
    assert bench.lines == ["a", "2 more odd things"]
